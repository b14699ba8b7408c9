// How rows ended whose calls were cut off: found out at Stripe, without the file that they came from.

import { byId, counted, duration, say, show } from "/page/elements.js";
import { get, NeedsToken, post } from "/page/http.js";

const LOOK_EVERY_MS = 1500;
// Lists are read page by page, in their turn.
const LISTS_TAKE_MS = 60_000;

let shown = null;
let changed = null;

export function openSettling(batch) {
  shown = batch;
  say("settle-said", "");
  byId("settle").disabled = false;
}

export function closeSettling() {
  shown = null;
}

export function startSettling(attempt, onChanged) {
  changed = onChanged;
  byId("settle").addEventListener("click", () => attempt(settle));
}

async function settle() {
  const batch = shown;
  byId("settle").disabled = true;
  try {
    await lookFor(batch);
  } finally {
    if (shown === batch) byId("settle").disabled = false;
  }
}

async function lookFor(batch) {
  const before = batch.view;
  const { rows, seconds, need_file: others, later } = await post(`${batch.path}/settle`);
  if (shown !== batch) return;
  if (rows === 0) return say("settle-said", othersWords(others));
  say("settle-said", `Looking at Stripe for ${counted(rows, "row")}. Those that have their cards are known in a moment; of the others it is certain in about ${duration(seconds)}.`);
  const until = Date.now() + 1000 * seconds + LISTS_TAKE_MS;
  let view = before;
  while (shown === batch && view.unresolved > others + later && Date.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    try {
      view = await get(batch.path);
    } catch (error) {
      // A server that is away for a moment, or a proxy before it, is asked again; what the server refuses it refuses again.
      if (error instanceof NeedsToken || error.problem?.status < 500 || Date.now() >= until) throw error;
      continue;
    }
    if (shown === batch) changed(batch, view);
  }
  if (shown === batch) say("settle-said", outcome(before, view, others, later));
}

// What became known, of a batch that stood otherwise before.
function outcome(before, view, others, later) {
  const [found, absent] = [view.issued - before.issued, view.refused - before.refused];
  const left = view.unresolved - others - later;
  return [
    found > 0 && `${counted(found, "row")} ${found === 1 ? "has its card" : "have their cards"}: found at Stripe.`,
    absent > 0 && `Stripe has nothing of ${counted(absent, "row")}: choose the same file again, and ${absent === 1 ? "it gets its card" : "they get their cards"}.`,
    left > 0 && `${counted(left, "row")} ${left === 1 ? "is" : "are"} not known yet: Stripe could not be asked, or something is there of which only the file tells whose it is. Try again later, or choose the same file.`,
    later > 0 && `${counted(later, "row")} ${later === 1 ? "is" : "are"} more than can be looked for at once: look again.`,
    others > 0 && othersWords(others),
  ].filter(Boolean).join(" ");
}

function othersWords(others) {
  return others === 0 ? "There is nothing left to find out."
    : `${counted(others, "row")} ${others === 1 ? "changes a card" : "change cards"}, and what was to be changed stands in your file alone: choose the same file, and it is found out.`;
}

export function showSettling(is) {
  show("again-panel", is);
}
