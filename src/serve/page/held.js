// A batch that waits for its approval or its start: what it would do, row by row, and the decision about it.

import { inWords } from "/page/columns.js";
import { ask, byId, cell, count, counted, fingerprint, inLocalTime, make, say, show, sure, tabs, time } from "/page/elements.js";
import { get, postJson } from "/page/http.js";
import { changedSince, haveWhatTheyAskFor, nothingTwice, ofAccount } from "/page/plan.js";
import { exactly, reasonInWords } from "/page/reasons.js";
import { makesChip } from "/page/states.js";

const ROWS_AT_ONCE = 50;
const SEARCH_AFTER_MS = 250;

let shown = null;
let attempt = null;
let decided = null;
let may = () => true;
let me = "";
let server = { mode: "test" };

export function setHeldRoles(can, name) {
  [may, me] = [can, name];
}

export function setHeldServer(view) {
  server = view;
}

export function openHeld(batch) {
  shown = { name: batch.name, path: batch.path, waits: null, only: "all", search: "", next: null, number: 0 };
  byId("held-search").value = "";
  byId("held-table").tBodies[0].replaceChildren();
}

export function closeHeld() {
  shown = null;
}

// What waits for its approval or its start: what it would do, and what is different from before.
export function showHeld({ held: waits, state }) {
  show("held", Boolean(waits));
  show("figures", !waits);
  show("who", !waits && may("read"));
  if (!waits || !shown) return;
  const isOther = shown.waits?.digest !== waits.digest;
  shown.waits = waits;
  const { plan, diff, submitter, start_ms: start, approve_until_ms: until, pins_until_ms: pins, approved_by: by } = waits;
  const { physical, virtual, cardholders, changes, cancels, pins: withPin } = plan.to_do;
  const made = [["Physical cards", physical], ["Virtual cards", virtual], ["New cardholders", cardholders], ["Changes of cards", changes], ["Cards cancelled", cancels], ["With a PIN", withPin]];
  const pairs = [["Rows", plan.rows], ...made, ["Done already", plan.done_before], ["Done in another batch", waits.second_cards ? 0 : plan.known_before],
    ["Stay refused", plan.stay_refused], ["Rows left out", waits.left_out]];
  byId("held-figures").replaceChildren(...pairs.filter(([, number]) => number > 0).map(([name, number]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, count(number)))));
  byId("held-said").replaceChildren(`Sent by ${submitter}.`, ...(by ? [` Approved by ${by}.`] : []),
    ...(until === null ? [] : [" It can be approved until ", time(until), "; then its rows are wiped."]),
    ...(pins === null ? [] : [" Its PINs can be used until ", time(pins), ": rows whose turn comes later are refused."]),
    ...(start === null ? [] : [" It starts ", time(start), "."]));
  const notes = [...plan.notes, ...compared(diff)];
  if (plan.changed_since) notes.unshift(changedSince(plan));
  if (plan.done_before) notes.unshift(`${haveWhatTheyAskFor(plan.done_before, plan)} in this batch already and ${nothingTwice(plan.done_before, plan)}.`);
  if (plan.known_before) notes.push(`${counted(plan.known_before, "row")} had a card from another batch when it came: no second one is made${waits.second_cards ? ", but this file asks for second cards: one for every row" : ""}.`);
  else if (waits.second_cards) notes.push("It asks for second cards: one for every row, whoever has one.");
  if (waits.changes.length) notes.push(`Otherwise than the file has it: ${waits.changes.join(", ")}.`);
  byId("held-notes").replaceChildren(...notes.map((note) => make("li", {}, inLocalTime(note))),
    make("li", {}, "The file’s fingerprint, which no other file has:", fingerprint(waits.file_sha256)));
  const warnings = byId("held-warnings");
  warnings.hidden = plan.warning_count === 0;
  const told = plan.warnings.length < plan.warning_count ? `, the first ${count(plan.warnings.length)} of them` : "";
  warnings.firstElementChild.textContent = `${counted(plan.warning_count, "thing")} that may be wrong${told}`;
  warnings.lastElementChild.replaceChildren(...plan.warnings.map((wrong) => make("li", { className: "warning" },
    `Line ${wrong.line}${wrong.row_id ? ` (${wrong.row_id})` : ""}: ${inSentence(wrong)}`)));
  const waitsForMe = state === "awaiting_approval" && may("approve") && submitter !== me;
  show("approve", waitsForMe);
  show("reject", state === "awaiting_approval" && may("approve"));
  byId("approve").textContent = `Approve: ${rowsOf(plan)}`;
  say("held-why", state !== "awaiting_approval" || waitsForMe ? ""
    : submitter === me ? "You sent it: somebody else must approve it." : "To approve it takes a token with the role “approve”.");
  show("held-rows", may("approve"));
  if (isOther && may("approve")) choose({ only: "all" });
}

// What is different from the batch of this name that was issued before.
function compared(diff) {
  if (!diff) return ["No batch of this name was issued before."];
  const first = (names, number) => (names.length ? `: ${names.join(", ")}${number > names.length ? ", …" : ""}` : "");
  return [
    `${counted(diff.same, "row")} as before${diff.same_done ? `, of which ${count(diff.same_done)} ${diff.same_done === 1 ? "is" : "are"} done already` : ""}.`,
    ...(diff.new ? [`${counted(diff.new, "row")} that ${diff.new === 1 ? "was" : "were"} not there before${first(diff.first_new, diff.new)}.`] : []),
    ...(diff.changed ? [`${counted(diff.changed, "row")} ${diff.changed === 1 ? "asks" : "ask"} for something else than before${first(diff.first_changed, diff.changed)}.`] : []),
    ...(diff.gone ? [`${counted(diff.gone, "row")} ${diff.gone === 1 ? "is" : "are"} no more in the file${first(diff.first_gone, diff.gone)}. What was made for ${diff.gone === 1 ? "it" : "them"} stays.`] : []),
  ];
}

// Its rows in words: how many of them something is done for, where that is not all.
function rowsOf({ rows, to_do: { rows: left } }) {
  if (left === rows) return counted(rows, "row");
  return left === 0 ? `${counted(rows, "row")}, of which nothing is left to do` : `${count(left)} of ${counted(rows, "row")}`;
}

// What the last question says of it: what cannot be taken back stands first.
function questionAbout({ name, waits: { plan, start_ms: start } }) {
  const { rows, cancels, physical } = plan.to_do;
  const real = server.mode === "live" && rows > 0 ? `What it does is real and cannot be taken back${ofAccount(server, "it is done")}.` : "";
  return [`Approve “${name}”: ${rowsOf(plan)}?`,
    cancels > 0 && `${counted(cancels, "card")} ${cancels === 1 ? "is" : "are"} cancelled, for ever. That cannot be undone.`,
    physical > 0 && `${counted(physical, "physical card")} ${physical === 1 ? "is" : "are"} printed and sent.`,
    rows > 0 && (start === null ? "It begins at once." : `It starts ${new Date(start).toLocaleString()}.`),
    real].filter(Boolean).join("\n\n");
}

function choose(change) {
  Object.assign(shown, change, { next: null });
  const { plan, left_out: leftOut } = shown.waits;
  const groups = [["all", `All rows (${count(plan.rows + leftOut)})`], ["warned", "May be wrong", plan.warning_count], ["left_out", `Left out (${count(leftOut)})`, leftOut]];
  tabs("held-filters", groups.filter(([, , number]) => number === undefined || number > 0).map(([only, words]) => [only, words]), shown.only, (only) => choose({ only }));
  attempt(() => fetchRows(false), "held");
}

async function fetchRows(more) {
  const list = shown;
  if (!list) return;
  const query = new URLSearchParams({ limit: ROWS_AT_ONCE });
  if (list.only !== "all") query.set("only", list.only);
  if (list.search.trim()) query.set("q", list.search.trim());
  if (more && list.next) query.set("after", list.next);
  const number = (list.number += 1);
  const { rows, next, digest } = await get(`${list.path}/held-rows?${query}`);
  // Rows of another file than the one that is looked at are not shown beside it.
  if (shown !== list || number !== list.number || digest !== list.waits.digest) return;
  list.next = next;
  const body = byId("held-table").tBodies[0];
  const lines = rows.map(lineOf);
  if (more) body.append(...lines);
  else body.replaceChildren(...lines);
  show("held-table", body.rows.length > 0);
  show("held-more", next !== null);
  show("held-none", body.rows.length === 0);
}

const PINS = { file: "with a PIN", cardholder: "PIN chosen by the cardholder" };
const INTERVALS = { all_time: "in all", daily: "a day", monthly: "a month", per_authorization: "a payment", weekly: "a week", yearly: "a year" };

function lineOf(row) {
  const hint = (words) => make("span", { className: "hint" }, words);
  const made = row.left_out ? makesChip("left_out") : row.done ? makesChip("done") : make("span", {}, makesChip(row.makes), ...(row.pin ? [make("br"), hint(PINS[row.pin])] : []));
  const amounts = row.amounts.map(({ amount, interval }) => make("div", {}, `${amount}${interval ? ` ${INTERVALS[interval] ?? interval}` : ""}`));
  const goes = [row.destination, row.card && `card ${row.card}`, row.changes.length ? `changes ${row.changes.join(", ")}` : null].filter(Boolean).join("; ");
  const said = [...row.problems, ...row.warnings].map((wrong) => make("p", { className: "said", title: exactly(wrong.code, wrong.reason) }, inSentence(wrong)));
  // Of a card that is changed: whose row made it, as far as that is known.
  const { made_by: by } = row;
  const id = row.row_id ?? by?.row_id ?? (by?.row ? `row ${by.row} of “${by.batch}”` : null);
  const of = by ? make("div", { className: "hint" }, `card •••• ${by.last4}, from “${by.batch}”`) : null;
  return make("tr", {},
    cell(String(row.line), "Line", "number"),
    make("th", { scope: "row", data: { label: "Who" } }, make("div", {}, row.person ?? id ?? "–", row.person && id ? make("span", { className: "hint" }, ` ${id}`) : "", of)),
    cell(made, "What"), cell(goes, "Where it goes"),
    cell(amounts.length ? make("div", {}, ...amounts) : "", "Limits"), cell(said.length ? make("div", {}, ...said) : "", "What to look at"));
}

function inSentence({ severity, code, column, found, reason }) {
  return `${severity === "warning" ? "May be wrong: " : ""}${column ? `${inWords(column)}: ` : ""}${found ? `“${found}” ` : ""}${reasonInWords(code, reason)}`;
}

function decide(batch, action, body) {
  return attempt(async () => decided(batch, await postJson(`${batch.path}/${action}`, body)));
}

export function startHeld(attempted, onDecided) {
  [attempt, decided] = [attempted, onDecided];
  let timer;
  byId("held-search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => shown?.waits && choose({ search: byId("held-search").value }), SEARCH_AFTER_MS);
  });
  byId("held-more").addEventListener("click", () => attempt(() => fetchRows(true)));
  byId("approve").addEventListener("click", async () => {
    const batch = shown;
    const { digest, plan } = batch.waits;
    const tone = plan.to_do.cancels > 0 ? "danger" : "main";
    if (await sure(questionAbout(batch), "Approve it", tone)) decide(batch, "approve", { digest });
  });
  byId("reject").addEventListener("click", async () => {
    const batch = shown;
    const reason = await ask(`Reject “${batch.name}”? Nothing of it is issued.`, "Reject it", "Why, for whoever sent it");
    if (reason) decide(batch, "reject", { reason });
  });
}
