// One comparison: a prompt sent to several at once, and what they answer.

import { ask, newAnswer } from "../answer.js";
import { useEffect, useRef } from "../preact.js";
import { createStore, useStore } from "../store.js";
import { shuffled } from "./votes.js";

/**
 * @typedef {object} Run
 * @property {import("./choices.js").Choice[]} choices who was asked
 * @property {import("../answer.js").Answer[]} answers theirs, in the same order
 * @property {number[]} order which answer stands in each place
 * @property {boolean} blind whether names are hidden until the vote
 * @property {boolean} open whether names are shown
 * @property {{vote: number|string, route: string|null}|null} verdict what became of the vote
 */

// Who looks at another page meanwhile finds the answers again.
const last = createStore(null);

/** `{run, busy, start, stop, reveal}`: the comparison that a component shows; leaving the page stops it. */
export function useRun() {
  const run = useStore(last);
  const controller = useRef(null);
  const stop = () => controller.current?.abort();
  useEffect(() => stop, []);

  function start(choices, requests, blind) {
    stop();
    const mine = new AbortController();
    controller.current = mine;
    const order = blind ? shuffled(choices.length) : [...choices.keys()];
    last.set({ choices, answers: requests.map(newAnswer), order, blind, open: !blind, verdict: null });
    requests.forEach((request, at) => {
      const onChange = (answer) => {
        if (controller.current !== mine) return; // of a comparison that another has replaced
        last.set({ ...last.get(), answers: last.get().answers.with(at, answer) });
      };
      ask(request, { signal: mine.signal, onChange });
    });
  }

  const reveal = (verdict = null) => last.set({ ...last.get(), open: true, verdict });
  return { run, busy: run !== null && !hasEnded(run), start, stop, reveal };
}

/** Whether every answer of a run has ended. */
export function hasEnded({ answers }) {
  return answers.every(({ state }) => state !== "streaming");
}
