// The vote on answers whose names are hidden.

import { html, useState } from "../preact.js";
import { experimentOf, NONE, recordVote, TIE } from "./votes.js";

const LONGEST_REMINDER = "Names, figures and routes are hidden until you vote.";

/**
 * Asks which answer is best once all are there. `onVote(vote)` is called with its number, `TIE` or `NONE` once the vote
 * is kept or there is nowhere to keep it; `onGiveUp()` where names are wanted without a vote.
 */
export function Ballot({ run, nameAt, onVote, onGiveUp }) {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const { answers, order } = run;
  const waiting = answers.filter(({ state }) => state === "streaming").length;
  if (waiting > 0) {
    return html`<p class="notice" role="status">${answers.length - waiting} of ${answers.length} answers are there. ${LONGEST_REMINDER}</p>`;
  }
  if (answers.some(({ state }) => state !== "done")) {
    return html`
      <div class="notice row">
        <p class="grow" role="status">Not every answer is complete, so there is nothing to vote on.</p>
        <button type="button" onClick=${onGiveUp}>Show the names</button>
      </div>
    `;
  }
  const cast = async (vote) => {
    setBusy(true);
    setProblem(null);
    const route = experimentOf(answers);
    try {
      if (route) await recordVote(answers, vote);
      onVote(vote, route);
    } catch (error) {
      setProblem(error);
      setBusy(false);
    }
  };
  return html`
    <fieldset class="ballot" disabled=${busy}>
      <legend>Which answer is best?</legend>
      <div class="row">
        ${order.map((at) => html`<button key=${at} type="button" class="primary" onClick=${() => cast(at)}>${nameAt(at)}</button>`)}
        <button type="button" onClick=${() => cast(TIE)}>Equally good</button>
        <button type="button" onClick=${() => cast(NONE)}>None is good</button>
        <button type="button" class="quiet" onClick=${onGiveUp}>Show the names without a vote</button>
      </div>
      ${problem && html`<p class="alert" role="alert">The vote could not be kept: ${problem.message}. Vote again to try again.</p>`}
    </fieldset>
  `;
}

/** What became of a vote, in words. */
export function Verdict({ vote, route, nameAt }) {
  const told = vote === TIE ? "You found them equally good." : vote === NONE ? "You found none good." : html`You chose <bdi>${nameAt(vote)}</bdi>.`;
  return html`
    <p class="notice" role="status">
      ${told} ${route ? html`The vote counts for the experiment <bdi>${route}</bdi>.` : "These are no variants of one experiment, so the vote is kept nowhere."}
    </p>
  `;
}
