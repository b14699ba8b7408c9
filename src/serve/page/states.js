// How things stand, in a sign, a word and a tone: never by colour alone.

import { count, make } from "/page/elements.js";
import { plainly } from "/page/http.js";

const BATCHES = {
  awaiting_approval: ["…", "waits for approval", "look"],
  scheduled: ["→", "waits for its start", "busy"],
  rejected: ["✕", "rejected", "bad"],
  expired: ["!", "waited too long", "bad"],
  running: ["▶", "being issued", "busy"],
  paused: ["‖", "paused", "look"],
  cancelling: ["…", "being cancelled", "look"],
  cancelled: ["⊘", "cancelled", "look"],
  finished: ["✓", "finished", "good"],
  interrupted: ["!", "interrupted", "bad"],
  open: ["○", "jobs sent one by one or through a queue", ""],
};

const LAST_FILE = {
  rejected: ["✕", "its last file was rejected", "look"],
  expired: ["!", "its last file waited too long", "look"],
};

const ROWS = {
  issued: ["✓", "issued", "good"],
  updated: ["✓", "changed", "good"],
  created: ["✓", "created", "good"],
  refused: ["✕", "refused", "bad"],
  unresolved: ["?", "not known yet", "look"],
  awaiting_pin: ["…", "waits for its PIN", "look"],
};

const MAKES = {
  virtual_card: ["▭", "virtual card", ""],
  physical_card: ["▬", "physical card", ""],
  cardholder: ["+", "cardholder", ""],
  change: ["↻", "card changed", "look"],
  cancel: ["⊘", "card cancelled, for ever", "bad"],
  done: ["✓", "done already", "good"],
  left_out: ["–", "left out", "bad"],
};

// What a row that waits would do.
export function makesChip(makes) {
  return chip(MAKES[makes] ?? ["○", makes, ""]);
}

function chip([sign, words, tone]) {
  return make("span", { className: `state ${tone}` }, make("i", { aria: { hidden: "true" } }, sign), words);
}

// Rows that have no end yet.
export function leftOf({ waiting, unresolved, awaiting_pin: awaiting }) {
  return waiting + unresolved + awaiting;
}

export function batchChip({ state, refused, issued, cancelled_cards: cancelled, cancelled_rows: rows, awaiting_pin: awaiting }) {
  if (state === "finished" && cancelled > 0) return chip(["⊘", cancelled === issued ? "its cards were cancelled" : `finished, ${cancelled} cards cancelled since`, "look"]);
  if (state === "finished" && awaiting > 0) return chip(["…", `waits for ${awaiting === 1 ? "a PIN" : `${awaiting} PINs`}`, "look"]);
  if (state === "finished" && rows > 0 && refused === rows) return chip(["⊘", issued === 0 ? "cancelled" : `finished, ${rows} ${rows === 1 ? "row" : "rows"} cancelled`, "look"]);
  if (state === "finished" && refused > 0) return chip(["✓", "finished, some refused", "look"]);
  // Of a batch that has cards only the file that came last is none.
  if (LAST_FILE[state] && issued > 0) return chip(LAST_FILE[state]);
  return chip(BATCHES[state] ?? ["○", state, ""]);
}

export function rowChip({ outcome, code, cancelled_by: cancelledBy }, isBegun) {
  if (isBegun) return chip(["▶", "under way", "busy"]);
  if (cancelledBy) return chip(["⊘", "issued, cancelled since", "look"]);
  if (outcome === "refused" && code === "cancelled") return chip(["⊘", "cancelled", "look"]);
  if (outcome === null) return chip(["○", "not in this batch", ""]);
  return chip(ROWS[outcome] ?? ["○", outcome, ""]);
}

// What a batch's state asks of its reader.
export function advice({ state, reason, issued, unresolved, awaiting_pin: awaiting }) {
  const because = reason ? ` ${reason[0].toUpperCase()}${plainly(reason).slice(1)}.` : "";
  switch (state) {
    case "running": return "Its rows are being issued. You can close this page: it goes on.";
    case "paused": return "No further row begins until it is resumed.";
    case "cancelling": return "What has begun ends; the rest is not issued.";
    case "cancelled": return "It was cancelled. Cards that were issued before stay. Upload the same file again to go on with it.";
    case "interrupted": return `It was cut off.${because} Upload the same file again to finish it: rows that have their card get no second one.`;
    case "finished": return awaiting ? "Every other row has ended; these wait until their cardholders have chosen a PIN." : unresolved ? "It has ended." : "Every row has ended.";
    case "awaiting_approval": return "Nothing of it is issued before somebody else has approved it.";
    case "scheduled": return "It begins by itself at its time.";
    // A token's name is written as it is.
    case "rejected": return `${nothingOf(issued)}: ${plainly(reason ?? "it was rejected")}.`;
    case "expired": return `${nothingOf(issued)}.${because}`;
    case "open": return "These jobs were sent one by one, or through a queue: more may be on their way.";
    default: return because.trim();
  }
}

// What was sent last, beside rows that were done before it came.
function nothingOf(issued) {
  if (issued === 0) return "Nothing of it was issued";
  return `Nothing of the file that was sent last was issued, and ${issued === 1 ? "the row that was done before stays" : `the ${count(issued)} rows that were done before stay`} as ${issued === 1 ? "it is" : "they are"}`;
}

export function underWay({ state }) {
  return ["running", "paused", "cancelling"].includes(state);
}
