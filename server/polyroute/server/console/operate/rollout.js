// One rollout: its steps, what is known so far, every change, and what an operator may do about it.

import { call } from "../api.js";
import { html, useState } from "../preact.js";
import { Confirm } from "./confirm.js";
import { count, lasted, metricName, moment, num, percent, seconds, short, word } from "./figures.js";
import { Interval, scaleOf } from "./interval.js";

const TONES = { running: "new", pending: "quiet", paused: "busy", inconclusive: "busy", promoted: "good", "rolled back": "bad" };
const OVER = ["promoted", "rolled back"];

const ACTIONS = {
  PauseRollout: { text: "Pause", when: ["running", "pending"], reason: "optional", says: () => "It stays at its step until it is resumed." },
  ResumeRollout: { text: "Resume", when: ["paused", "inconclusive"], reason: "optional", says: () => "It goes on from its step." },
  PromoteRollout: {
    text: "Promote",
    reason: "required",
    says: ({ to }) => `All traffic goes to “${to}” at once, without further evidence.`,
  },
  RollBackRollout: {
    text: "Roll back",
    reason: "required",
    danger: true,
    says: ({ from }) => `All traffic goes back to “${from}” at once.`,
  },
};

/** Shows a `Rollout`; `onChanged()` is called once an operator has changed it. */
export function RolloutCard({ rollout, onChanged }) {
  const state = word(rollout.state, "ROLLOUT_STATE_");
  const [asked, setAsked] = useState(null);
  const offered = Object.entries(ACTIONS).filter(([, { when }]) => !OVER.includes(state) && (!when || when.includes(state)));
  return html`
    <section class="card rollout" aria-label=${`Rollout of ${rollout.route}`}>
      <div class="row">
        <h2>Rollout</h2>
        <span class=${`badge ${TONES[state] ?? "quiet"}`}>${state}</span>
        <span class="soft small numbers">
          <bdi>${rollout.from}</bdi> → <bdi>${rollout.to}</bdi>, which has ${percent(num(rollout.weight))} of the traffic
        </span>
        <span class="grow"></span>
        ${offered.map(
          ([method, { text, danger }]) => html`
            <button key=${method} type="button" class=${danger ? "small danger" : "small"} onClick=${() => setAsked(method)}>${text}</button>
          `,
        )}
      </div>
      <${Steps} rollout=${rollout} state=${state} />
      ${(rollout.evidence ?? []).length > 0 && html`
        <${EvidenceList} evidence=${rollout.evidence} />
        <p class="soft small">
          The new version less the old one, and the range in which that lies: above 0 is worse. The e-value says how strongly this
          speaks against “the new version is no worse”: 1 is nothing, 20 is strong.
        </p>
      `}
      <${History} history=${rollout.history ?? []} />
      ${rollout.controller && html`<p class="soft tiny">Controlled by ${rollout.controller}</p>`}
      ${asked &&
      html`
        <${Confirm} title=${`${ACTIONS[asked].text} the rollout of ${rollout.route}?`} yes=${ACTIONS[asked].text}
          danger=${ACTIONS[asked].danger} reason=${ACTIONS[asked].reason} onClose=${() => setAsked(null)}
          onYes=${(reason) => call("AdminService", asked, { route: rollout.route, reason }).then(onChanged)}>
          ${ACTIONS[asked].says(rollout)}
        <//>
      `}
    </section>
  `;
}

function Steps({ rollout, state }) {
  const now = rollout.step ?? 0;
  const steps = rollout.steps ?? [];
  const place = (i) => (state === "promoted" || (i < now && state !== "rolled back") ? "done" : i === now && !OVER.includes(state) ? "current" : "");
  return html`
    <ol class="rollout-steps numbers" aria-label="Steps">
      ${steps.map(
        ({ weight, hold, minSamples }, i) => html`
          <li key=${i} class=${place(i)} aria-current=${place(i) === "current" ? "step" : null}>
            <b>${percent(num(weight))}</b>
            <span class="soft tiny">${seconds(lasted(hold))}${num(minSamples) > 0 ? `, ${count(minSamples)} answers` : ""}</span>
          </li>
        `,
      )}
      <li class=${state === "promoted" ? "done" : ""}><b>100%</b><span class="soft tiny">promoted</span></li>
    </ol>
  `;
}

function EvidenceList({ evidence }) {
  const read = evidence.map(({ difference, lower, upper, ...rest }) => ({
    ...rest,
    value: num(difference),
    lower: num(lower),
    upper: num(upper),
  }));
  return html`
    <h3>Evidence</h3>
    <div class="estimates numbers">
      ${read.map((one) => {
        const words = `${short(one.value)} in [${short(one.lower)}, ${short(one.upper)}]`;
        return html`
          <span key=${one.metric} class="estimate-name">${metricName(one.metric)}</span>
          <${Interval} ...${one} zero scale=${scaleOf([one], true)} tone=${one.lower > 0 ? "bad" : one.upper < 0 ? "good" : ""}
            text=${`${one.metric}: the new version less the old one is ${words}`} />
          <span>
            ${short(one.value)}${" "}
            <span class="soft small">${`[${short(one.lower)}, ${short(one.upper)}] · e-value ${short(num(one.eValue))} · ${count(one.samplesFrom)} and ${count(one.samplesTo)} answers`}</span>
          </span>
        `;
      })}
    </div>
  `;
}

function History({ history }) {
  if (history.length === 0) return html`<p class="soft small">Nothing has happened yet.</p>`;
  const newest = [...history].reverse();
  return html`
    <h3>History</h3>
    <ol class="history" aria-label="History, newest first">
      ${newest.map(
        ({ time, from, to, step, reason, actor, evidence }, i) => html`
          <li key=${`${time} ${i}`}>
            <time datetime=${time} class="soft small numbers">${moment(time)}</time>
            <span>
              <b>${word(to, "ROLLOUT_STATE_")}</b>
              ${from && from !== to && word(from, "ROLLOUT_STATE_") !== "unspecified" ? html`<span class="soft">${` (was ${word(from, "ROLLOUT_STATE_")})`}</span>` : ""}
              ${`, step ${(step ?? 0) + 1}`}
              ${reason && html`: <bdi>${reason}</bdi>`}
              <span class="soft small"> · ${actor}</span>
              ${(evidence ?? []).length > 0 &&
              html`
                <details>
                  <summary class="small">What was known then</summary>
                  <${EvidenceList} evidence=${evidence} />
                </details>
              `}
            </span>
          </li>
        `,
      )}
    </ol>
  `;
}
