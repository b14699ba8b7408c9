// Who did what: the audit log, the latest first.

import { byId, cell, count, make, save, show, time } from "/page/elements.js";
import { download, get } from "/page/http.js";

const ENTRIES_AT_ONCE = 50;
const SEARCH_AFTER_MS = 250;

const WORDS = {
  batch_begun: "began a batch",
  batch_held: "sent a batch for approval",
  batch_scheduled: "sent a batch to start later",
  batch_approved: "approved a batch",
  batch_rejected: "rejected a batch",
  batch_expired: "let a batch wait too long",
  batch_paused: "paused a batch",
  batch_resumed: "resumed a batch",
  batch_cancelled: "cancelled a batch",
  batch_tracked: "asked where a batch’s cards are",
  cards_cancelled: "cancelled a batch’s cards",
  manifest_checked: "checked a file",
  columns_kept: "kept columns for later files",
  job_sent: "sent a job",
  pin_links_listed: "listed links for PINs",
  pin_links_made: "made links for PINs",
  pin_link_revoked: "revoked a link for a PIN",
  pin_jobs_cancelled: "cancelled rows that waited for a PIN",
  pin_chosen: "chose a PIN",
  pin_shown: "had a PIN shown",
  tokens_read: "read the tokens anew",
};

let attempt = null;
let next = null;

export function openLog() {
  attempt(() => fetchEntries(false));
}

function query(more) {
  const all = new URLSearchParams(more);
  const batch = byId("log-batch").value.trim();
  if (batch) all.set("batch", batch);
  return all;
}

async function fetchEntries(more) {
  const { entries, next: after } = await get(`/v1/audit?${query({ limit: ENTRIES_AT_ONCE, ...(more && next ? { after: next } : {}) })}`);
  next = after;
  const lines = entries.map((entry) => make("tr", {},
    cell(time(Date.parse(entry.time)), "When"),
    make("th", { scope: "row", data: { label: "Who" } }, entry.who),
    cell(WORDS[entry.action] ?? entry.action, "What"),
    cell(entry.batch ?? entry.job ?? "", "Batch or job"),
    cell(entry.rows === null || entry.rows === undefined ? "" : count(entry.rows), "Rows", "number"),
    cell(entry.detail ?? "", "More")));
  const body = byId("log-table").tBodies[0];
  if (more) body.append(...lines);
  else body.replaceChildren(...lines);
  show("log-table", body.rows.length > 0);
  show("log-none", body.rows.length === 0);
  show("log-more", Boolean(next));
}

export function startLog(attempted) {
  attempt = attempted;
  let timer;
  byId("log-batch").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(openLog, SEARCH_AFTER_MS);
  });
  byId("log-more").addEventListener("click", () => attempt(() => fetchEntries(true)));
  byId("log-download").addEventListener("click", () => attempt(async () => save(await download(`/v1/audit.csv?${query({})}`), "who-did-what.csv")));
}
