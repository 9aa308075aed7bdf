// One comparison: a prompt sent to several at once, and what they answer.

import { ask, newAnswer } from "../answer.js";
import { useEffect, useRef, useState } from "../preact.js";
import { shuffled } from "./votes.js";

/**
 * @typedef {object} Run
 * @property {import("./choices.js").Choice[]} choices who was asked
 * @property {import("../answer.js").Answer[]} answers theirs, in the same order
 * @property {number[]} order which answer stands in each place
 * @property {boolean} blind whether names are hidden until the vote
 * @property {boolean} open whether names are shown
 */

/** `{run, busy, start, stop, reveal}`: the comparison that a component shows; leaving the page stops it. */
export function useRun() {
  const [run, setRun] = useState(null);
  const controller = useRef(null);
  const stop = () => controller.current?.abort();
  useEffect(() => stop, []);

  function start(choices, requests, blind) {
    stop();
    const mine = new AbortController();
    controller.current = mine;
    const order = blind ? shuffled(choices.length) : [...choices.keys()];
    setRun({ choices, answers: requests.map(newAnswer), order, blind, open: !blind });
    requests.forEach((request, at) => {
      const onChange = (answer) => {
        if (controller.current !== mine) return; // of a comparison that another has replaced
        setRun((current) => ({ ...current, answers: current.answers.with(at, answer) }));
      };
      ask(request, { signal: mine.signal, onChange });
    });
  }

  const reveal = () => setRun((current) => ({ ...current, open: true }));
  return { run, busy: run !== null && !hasEnded(run), start, stop, reveal };
}

/** Whether every answer of a run has ended. */
export function hasEnded({ answers }) {
  return answers.every(({ state }) => state !== "streaming");
}
