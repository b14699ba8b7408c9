// Who did what with one batch: who sent it, who approved it, who cancelled it.

import { byId, count, fingerprint, make, show, time } from "/page/elements.js";
import { get } from "/page/http.js";
import { detailInWords, inWords } from "/page/log.js";

// The latest; the others are a link away.
const ENTRIES_SHOWN = 6;

let shown = null;
let may = () => true;

export function setHistoryRoles(can) {
  may = can;
}

export function openHistory(batch) {
  shown = { name: batch.name, seen: "" };
  byId("history-list").replaceChildren();
  byId("history-all").href = `#/log?batch=${encodeURIComponent(batch.name)}`;
}

export function closeHistory() {
  shown = null;
}

// How the batch stands now: if that is news, somebody may have done something.
export async function showHistory({ state, held }) {
  const batch = shown;
  const seen = `${state} ${held?.digest ?? ""} ${held?.approved_by ?? ""}`;
  if (!batch || batch.seen === seen || !["operate", "approve", "audit"].some(may)) return;
  batch.seen = seen;
  try {
    const { entries, next } = await get(`/v1/audit?${new URLSearchParams({ batch: batch.name, limit: ENTRIES_SHOWN })}`);
    if (shown !== batch) return;
    byId("history-list").replaceChildren(...entries.map(lineOf));
    byId("history-all").textContent = next ? "All that was done with it, to search and to download" : "The same as a table, to search and to download";
    show("history", entries.length > 0);
  } catch {
    // It is shown beside the batch, and asked for again when that changes.
    batch.seen = "";
  }
}

function lineOf({ time: at, who, action, rows, digest, detail }) {
  const about = [rows ? `${count(rows)} ${rows === 1 ? "row" : "rows"}` : "", detailInWords(detail)].filter(Boolean).join(", ");
  return make("li", {}, time(Date.parse(at), "medium"), " ", make("strong", {}, who), ` ${inWords(action)}${about ? ` (${about})` : ""}.`,
    ...(digest ? [make("span", { className: "hint" }, " The file’s fingerprint: "), fingerprint(digest)] : []));
}
