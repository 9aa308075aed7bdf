// What an experiment has shown: each metric of each variant with its interval, and the differences from the control.

import { html } from "../preact.js";
import { count, inUnit, metricName, num, percent, short } from "./figures.js";
import { Interval, scaleOf } from "./interval.js";

const UNTOLD = 1e9; // a difference that needs so many answers is none that anybody waits for

/** Shows a `GetExperimentReportResponse`. */
export function Report({ report }) {
  const variants = report.variants ?? [];
  const metrics = [...new Set(variants.flatMap(({ metrics = [] }) => metrics.map(({ metric }) => metric)))];
  return html`
    <p class="report-summary">${report.summary}</p>
    ${report.sampleRatio && !report.sampleRatio.ok && num(report.sampleRatio.eValue) > 1 &&
    html`
      <p class="alert" role="alert">
        The variants' shares are not what they should be (e-value ${short(num(report.sampleRatio.eValue))}): find out why before
        anything else here is believed.
      </p>
    `}
    <${Variants} variants=${variants} />
    <div class="metrics">
      ${metrics.map((metric) => html`<${Metric} key=${metric} metric=${metric} report=${report} />`)}
    </div>
    ${(report.pinned ?? []).length > 0 && html`<${Pinned} pinned=${report.pinned} />`}
    ${(report.shadows ?? []).length > 0 && html`<${Shadows} shadows=${report.shadows} />`}
    ${(report.notes ?? []).length > 0 && html`<ul class="soft small notes">${report.notes.map((note) => html`<li key=${note}>${note}</li>`)}</ul>`}
  `;
}

function Variants({ variants }) {
  return html`
    <div class="scroll" role="region" aria-label="Variants" tabindex="0">
      <table class="numbers">
        <thead><tr><th>Variant</th><th>Model</th><th>Version</th><th class="number">Answers</th><th class="number">Share planned</th></tr></thead>
        <tbody>
          ${variants.map(
            ({ name, model, version, samples, expectedShare }) => html`
              <tr key=${`${name} ${version}`}>
                <th scope="row">${name}</th><td><bdi>${model}</bdi></td><td class="cut" title=${version}>${version || "–"}</td>
                <td class="number">${count(samples)}</td><td class="number">${percent(num(expectedShare))}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

function Metric({ metric, report }) {
  const estimates = report.variants.flatMap(({ name, metrics = [] }) =>
    metrics.filter((one) => one.metric === metric).map((one) => ({ name, unit: one.unit ?? "", ...bounds(one), samples: one.samples })),
  );
  const compared = (report.comparisons ?? [])
    .filter(({ evidence }) => evidence?.metric === metric)
    .map((one) => ({ ...one, ...bounds({ ...one.evidence, value: one.evidence.difference }) }));
  const unit = estimates[0]?.unit ?? "";
  const scale = scaleOf(estimates, false);
  const differences = scaleOf(compared, true);
  return html`
    <section class="card metric">
      <h3>${metricName(metric)}${unit && !["1", "s"].includes(unit) ? `, ${unit}` : ""} ${compared.some(({ guardrail }) => guardrail) && html`<span class="badge new">guardrail</span>`}</h3>
      <div class="estimates numbers">
        ${estimates.map(
          (one) => html`
            <span key=${one.name} class="estimate-name"><bdi>${one.name}</bdi></span>
            <${Interval} ...${one} scale=${scale} text=${`${one.name}: ${inWords(one, unit, metric)}`} />
            <span>${inUnit(one.value, unit, metric)} <span class="soft small">${range(one, unit, metric)} · ${count(one.samples)}</span></span>
          `,
        )}
        ${compared.map(
          (one) => html`
            <span key=${`${one.variant} less`} class="estimate-name soft"><bdi>${one.variant}</bdi> − <bdi>${one.control}</bdi></span>
            <${Interval} ...${one} scale=${differences} zero tone=${decided(one) ? "decided" : ""}
              text=${`${one.variant} less ${one.control}: ${inWords(one, unit, metric)}`} />
            <span>${inUnit(one.value, unit, metric)} <span class="soft small">${range(one, unit, metric)} · ${verdict(one)}</span></span>
          `,
        )}
      </div>
    </section>
  `;
}

function bounds({ value, lower, upper }) {
  return { value: num(value), lower: num(lower), upper: num(upper) };
}

function decided({ lower, upper }) {
  return lower > 0 || upper < 0;
}

function verdict(one) {
  if (decided(one)) return "differs";
  const needed = num(one.samplesNeeded);
  if (needed >= UNTOLD) return "too alike to tell";
  return needed > 0 ? `about ${short(needed)} more answers to tell` : "no difference seen";
}

function range({ lower, upper }, unit, metric) {
  return `[${inUnit(lower, unit, metric)}, ${inUnit(upper, unit, metric)}]`;
}

function inWords(one, unit, metric) {
  const [value, lower, upper] = [one.value, one.lower, one.upper].map((number) => inUnit(number, unit, metric));
  return `${value}, between ${lower} and ${upper}`;
}

function Pinned({ pinned }) {
  return html`
    <section class="card">
      <h3>What people said who compared</h3>
      <p class="soft small">They had chosen the variants themselves, so this counts for no comparison above.</p>
      <ul class="plain numbers">
        ${pinned.flatMap(({ name, metrics = [] }) =>
          metrics.map(
            (one) => html`
              <li key=${`${name} ${one.metric}`}>
                <bdi>${name}</bdi> · ${one.metric}: ${inUnit(num(one.value), one.unit, one.metric)}
                <span class="soft small">${" "}${range(bounds(one), one.unit, one.metric)} · ${count(one.samples)}</span>
              </li>
            `,
          ),
        )}
      </ul>
    </section>
  `;
}

function Shadows({ shadows }) {
  return html`
    <section class="card">
      <h3>Shadows</h3>
      <ul class="plain numbers">
        ${shadows.map(
          ({ deployment, pairs, exactMatches, meanEditDistance }) => html`
            <li key=${deployment}>
              <bdi>${deployment}</bdi>: ${count(pairs)} pairs, ${count(exactMatches)} with equal text, mean edit distance
              ${short(num(meanEditDistance))}
            </li>
          `,
        )}
      </ul>
    </section>
  `;
}
