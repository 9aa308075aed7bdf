// A comparison: who is asked what, and what they answer.

import { writeValuesInPage } from "../location.js";
import { recallJson, rememberJson } from "../memory.js";
import { readParameters } from "../parameter_fields.js";
import { Parameters } from "../parameters.js";
import { html, useEffect, useMemo, useRef, useState } from "../preact.js";
import { createStore, useStore } from "../store.js";
import { Ballot, Verdict } from "./ballot.js";
import { nameOf, requestOf, wordOf } from "./choices.js";
import { Chooser } from "./chooser.js";
import { Column } from "./column.js";
import { DiffView } from "./diff_view.js";
import { hasEnded, useRun } from "./run.js";
import { together } from "./scrolling.js";

const CHOICES = "compare.choices";
const asking = createStore({ prompt: "", system: "", parameters: {}, blind: false }); // as long as the console is open

/** The choices of the last visit. */
export function keptChoices() {
  return recallJson(CHOICES, []);
}

/** The page once the models are known; it begins with the choices `first`, and `unknown` are names of what is not there. */
export function Comparison({ entries, first, unknown }) {
  const [choices, setChoices] = useState(first);
  const question = useStore(asking);
  const { run, busy, start, stop, reveal } = useRun();
  useEffect(() => {
    writeValuesInPage("with", choices.map(wordOf));
    rememberJson(CHOICES, choices);
  }, [choices]);
  const send = () => {
    if (busy || !ready(question)) return;
    const { fields } = readParameters(question.parameters);
    const entryOf = ({ model }) => entries.find(({ id }) => id === model);
    const requests = choices.map((choice) => requestOf(choice, entryOf(choice), question, fields));
    start(choices, requests, question.blind);
  };
  return html`
    <div class="compare">
      <h1 class="unseen">Compare</h1>
      <section class="card compare-ask" aria-label="Question">
        ${unknown.length > 0 && html`<p class="alert" role="alert">No model or variant is named <bdi>${unknown.join(", ")}</bdi>.</p>`}
        <${Chooser} choices=${choices} entries=${entries} onChange=${setChoices} />
        <${Question} question=${question} busy=${busy} onChange=${asking.set} onSend=${send} onStop=${stop} />
      </section>
      ${run === null
        ? html`<p class="empty">
            Every model gets the same prompt at the same moment. Their speed, their tokens and what differs in their words stand here then.
          </p>`
        : html`<${Answers} run=${run} onVote=${(vote, route) => reveal({ vote, route })} onGiveUp=${() => reveal()} />`}
    </div>
  `;
}

// Whether a question can be sent: there is one, and every parameter makes sense.
function ready({ prompt, parameters }) {
  return prompt.trim() !== "" && Object.keys(readParameters(parameters).problems).length === 0;
}

function Question({ question, busy, onChange, onSend, onStop }) {
  const change = (field) => (event) => onChange({ ...question, [field]: event.currentTarget.value });
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      onSend();
    } else if (event.key === "Escape") onStop();
  };
  return html`
    <label class="field">Prompt
      <textarea rows="3" value=${question.prompt} onInput=${change("prompt")} onKeyDown=${onKeyDown} placeholder="Ask them all" />
    </label>
    <details>
      <summary>System prompt and parameters</summary>
      <div class="compare-parameters">
        <label class="field">System prompt
          <textarea rows="2" value=${question.system} placeholder="none" onInput=${change("system")} />
        </label>
        <${Parameters} value=${question.parameters} entry=${null} onChange=${(parameters) => onChange({ ...question, parameters })} />
      </div>
    </details>
    <div class="row">
      <button type="button" class="primary" disabled=${busy || !ready(question)} onClick=${onSend}>Ask all</button>
      <button type="button" disabled=${!busy} onClick=${onStop}>Stop all</button>
      <label class="check">
        <input type="checkbox" checked=${question.blind} disabled=${busy}
          onChange=${(event) => onChange({ ...question, blind: event.currentTarget.checked })} />
        Blind: hide the names until I vote
      </label>
    </div>
  `;
}

function Answers({ run, onVote, onGiveUp }) {
  const [linked, setLinked] = useState(true);
  const isLinked = useRef(linked);
  isLinked.current = linked;
  const scroll = useMemo(() => together(() => isLinked.current), []);
  const { answers, choices, order, open, verdict } = run;
  const nameAt = (at) => (open ? nameOf(choices[at]) : `Answer ${order.indexOf(at) + 1}`);
  const shown = open || hasEnded(run);
  const texts = order.filter((at) => answers[at].text && answers[at].state !== "streaming");
  return html`
    ${!open && html`<${Ballot} run=${run} nameAt=${nameAt} onVote=${onVote} onGiveUp=${onGiveUp} />`}
    ${verdict && html`<${Verdict} ...${verdict} nameAt=${nameAt} />`}
    <label class="check">
      <input type="checkbox" checked=${linked} onChange=${(event) => setLinked(event.currentTarget.checked)} />
      Scroll together
    </label>
    <div class="columns">
      ${order.map((at) => html`
        <${Column} key=${at} name=${nameAt(at)} answer=${answers[at]} answers=${answers} shown=${shown} open=${open}
          chosen=${verdict?.vote === at} scroll=${scroll} />
      `)}
    </div>
    ${shown && texts.length >= 2 && html`
      <${DiffView} answers=${texts.map((at) => ({ name: nameAt(at), text: answers[at].text }))} />
    `}
  `;
}
