// One chart of figures over time.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { html, useEffect, useRef, useState } from "../preact.js";
import { useStore } from "../store.js";
import { theme } from "../theme.js";

const HEIGHT = 150;
const AXES_PX = [26, 52];
const LEAST_S = 30;

/**
 * A chart of `lines`, `{name, colour, values}`, over `at`, Unix times in seconds. `colour` is a custom property such as
 * `--accent`, `spanS` is the time shown in seconds, `format(value)` writes a value, `most` is the top of the scale where that is fixed, and `pointed` with
 * `onPoint(index)` has several charts show the same moment.
 */
export function Chart({ title, at, spanS, lines, format, most, pointed, onPoint }) {
  const room = useRef(null);
  const plot = useRef(null);
  const [seen, setSeen] = useState({ width: 0, dark: darkNow() });
  const chosen = useStore(theme);

  useEffect(() => {
    const sized = new ResizeObserver(([{ contentRect }]) => {
      const width = Math.floor(contentRect.width);
      setSeen((known) => (known.width === width ? known : { ...known, width }));
    });
    sized.observe(room.current);
    const media = matchMedia("(prefers-color-scheme: dark)");
    const turned = () => setSeen((known) => ({ ...known, dark: darkNow() }));
    media.addEventListener("change", turned);
    return () => {
      sized.disconnect();
      media.removeEventListener("change", turned);
    };
  }, []);

  useEffect(() => {
    if (seen.width === 0) return undefined;
    const options = optionsOf({ width: seen.width, spanS, lines, format, most, onPoint });
    plot.current = new uPlot(options, dataOf(at, lines), room.current);
    return () => {
      plot.current.destroy();
      plot.current = null;
    };
  }, [seen.width, seen.dark, chosen, spanS, lines.map(({ name }) => name).join()]);

  useEffect(() => plot.current?.setData(dataOf(at, lines)), [at]);

  const index = pointed !== null && pointed < at.length ? pointed : at.length - 1;
  const said = lines.map(({ name, values }) => `${name} ${format(values[index] ?? null)}`);
  return html`
    <figure class="chart card">
      <figcaption>
        <h2>${title}</h2>
        <span class="row chart-now numbers">
          ${lines.map(
            ({ name, colour, values }) => html`
              <span key=${name} class=${`key key${colour.slice(1)}`}>${name} <b>${format(values[index] ?? null)}</b></span>
            `,
          )}
        </span>
      </figcaption>
      <div class="chart-room" ref=${room} role="img" aria-label=${`${title}: ${said.join(", ")}`}></div>
    </figure>
  `;
}

function darkNow() {
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function clock(at) {
  return new Date(at * 1_000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

function dataOf(at, lines) {
  return [at, ...lines.map(({ values }) => values)];
}

function optionsOf({ width, spanS, lines, format, most, onPoint }) {
  const styles = getComputedStyle(document.documentElement);
  const colour = (name) => styles.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const font = `11px ${styles.getPropertyValue("--sans")}`;
  return {
    width,
    height: HEIGHT,
    padding: [8, 8, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: "operate" }, y: false, points: { show: false }, drag: { x: false, y: false } },
    hooks: { setCursor: [({ cursor }) => onPoint?.(cursor.idx ?? null)] },
    scales: {
      x: { time: true, range: (_, low, high) => [Math.min(high - LEAST_S, Math.max(low, high - spanS)), high] },
      y: { range: (_, low, high) => [0, most ?? (high > 0 ? high * 1.1 : 1)] },
    },
    axes: [
      { ...axis, font, size: AXES_PX[0], space: 80, values: (_, ticks) => ticks.map(clock) },
      { ...axis, font, size: AXES_PX[1], space: 34, values: (_, ticks) => ticks.map(format) },
    ],
    series: [
      {},
      ...lines.map((line) => ({ stroke: colour(line.colour), width: 1.5, points: { show: false }, spanGaps: false })),
    ],
  };
}
