// How busy the server is, live: calls, times, tokens, queues and the cache.

import { useModels } from "../models.js";
import { html, useMemo, useState } from "../preact.js";
import { useStore } from "../store.js";
import { Chart } from "./chart.js";
import { percent, seconds, short } from "./figures.js";
import { traffic } from "./sampler.js";
import { ALL, seriesOf } from "./traffic.js";

const STRETCH = 5; // points of two seconds: one line's value is that of the ten before
const SPANS = { 1: "1 min", 5: "5 min", 15: "15 min" };

const CHARTS = [
  { title: "Calls a second", format: short, lines: [["all", "--accent", "calls"], ["failed", "--bad", "errors"]] },
  { title: "Time to the whole answer", format: seconds, lines: [["p50", "--accent", "p50"], ["p95", "--new", "p95"]] },
  { title: "Time to the first token", format: seconds, lines: [["p50", "--accent", "first50"], ["p95", "--new", "first95"]] },
  { title: "Tokens a second", format: short, lines: [["generated", "--accent", "tokens"]] },
  { title: "Calls at once", format: short, lines: [["in flight", "--accent", "inFlight"], ["waiting", "--busy", "queued"]] },
  { title: "Answered by the cache", format: percent, most: 1, lines: [["of the calls", "--good", "hits"]] },
];

/** The view `#/operate/load`. */
export function ChartsView() {
  const { points, error } = useStore(traffic);
  const [model, setModel] = useState(ALL);
  const [span, setSpan] = useState(5);
  const [pointed, setPointed] = useState(null);
  const made = useMemo(() => shown(points, model, span), [points, model, span]);
  return html`
    <div class="row controls">
      <${Choice} model=${model} onChange=${setModel} />
      <fieldset class="row spans">
        <legend class="unseen">Time shown</legend>
        ${Object.entries(SPANS).map(
          ([minutes, text]) => html`
            <label key=${minutes} class="check">
              <input type="radio" name="span" checked=${span === Number(minutes)} onChange=${() => setSpan(Number(minutes))} />
              ${text}
            </label>
          `,
        )}
      </fieldset>
    </div>
    ${error && html`<p class="alert" role="alert">The server's metrics cannot be read: ${error.message}</p>`}
    ${points.length === 0 && !error && html`<p class="soft" role="status">Waiting for two readings…</p>`}
    <div class="charts">
      ${CHARTS.map(
        ({ title, format, most, lines }) => html`
          <${Chart} key=${title} title=${title} format=${format} most=${most} spanS=${span * 60} at=${made.at} pointed=${pointed} onPoint=${setPointed}
            lines=${lines.map(([name, colour, values]) => ({ name, colour, values: made[values] }))} />
        `,
      )}
    </div>
    <p class="soft small">Read from <a href="metrics">/metrics</a> every 2 s while this page is seen, and kept in it for 15 minutes;
      each value is that of the ten seconds before. Times are estimated from buckets.</p>
  `;
}

function Choice({ model, onChange }) {
  const { entries } = useModels();
  return html`
    <label class="field">Model
      <select value=${model} onChange=${(event) => onChange(event.currentTarget.value)}>
        <option value=${ALL}>All together</option>
        ${entries.filter(({ kind }) => kind !== "route").map(({ id }) => html`<option key=${id} value=${id}>${id}</option>`)}
      </select>
    </label>
  `;
}

function shown(points, model, span) {
  const from = (points.at(-1)?.at ?? 0) - span * 60;
  const first = points.findIndex(({ at }) => at >= from);
  const begin = Math.max(0, first);
  const made = seriesOf(points.slice(Math.max(0, begin - STRETCH)), model, STRETCH);
  const extra = begin - Math.max(0, begin - STRETCH);
  return Object.fromEntries(Object.entries(made).map(([name, values]) => [name, values.slice(extra)]));
}
