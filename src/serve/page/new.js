// A new batch: from a file, over what its columns are and what is to be mended, to a plan, and from that to cards.

import { DEFAULTS, canShipToOwn, inWords, joinedOf, rememberColumns, rememberedColumns, showColumns, showMoreDefaults, showOwnAddress, taken, toml, twice } from "/page/columns.js";
import { compared, listed } from "/page/csv.js";
import { byId, count, counted, make, save, say, show, size, sure, sureOf } from "/page/elements.js";
import { NeedsToken, download, get, putText, sendForm, trouble, wasChanged } from "/page/http.js";
import { firstOf, ofColumn, showLines, words } from "/page/found.js";
import { showMending } from "/page/mend.js";
import { addColumns, canBeWritten, editsOf, mendedFile, ownTable, withAdded } from "/page/mended.js";
import { cancelsLeft, issuedElsewhere, lastQuestion, showIssuedBefore, showPlan, showWork } from "/page/plan.js";
import { exactly, reasonInWords } from "/page/reasons.js";
import { isWantedAtOnce, standing } from "/page/standing.js";

const TABLE_ROWS = 500;
const CONTRADICTIONS_SHOWN = 5;
// Codes of rows that are wrong beside others.
const CONTRADICTIONS = { duplicate_row_id: "have the same staff number", two_people_one_email: "are two people with one e-mail address", one_person_two_emails: "are one person with two e-mail addresses" };
const STEPS = ["file", "columns", "check", "plan"];

let server = { mode: "test", upload_bytes_max: Infinity, columns: [], keeps_columns: false };
let may = () => true;
let begun = null;
let attempt = null;
let draft = null;
// Whether somebody is being asked whether the draft is to be issued.
let isAsking = false;
// The batch that the next file belongs to, if it is one that exists.
let wantedName = "";
// Whether of that batch only what needs no change is tried again.
let wantedRetry = false;

export function setServer(view, can) {
  [server, may] = [view, can];
  const select = byId("saved");
  show("saved-choice", view.columns.length > 0);
  show("keep-columns", view.keeps_columns && may("submit"));
  // The list stays as it is while nothing changed: somebody may be choosing from it.
  if ([...select.options].slice(1).map((option) => option.value).join() !== view.columns.join()) {
    const chosen = select.value;
    select.replaceChildren(select.options[0], ...view.columns.map((name) => new Option(name, name)));
    if (view.columns.includes(chosen)) select.value = chosen;
  }
  show("may-not-submit", !may("submit"));
  say("may-not-submit", "Your token may look, but not send files: that takes one with the role “submit”.");
  byId("file").disabled = !may("submit");
  byId("templates").querySelectorAll("button").forEach((button) => (button.disabled = !may("submit")));
}

// Whether something was mended here that is not issued yet.
export function isUnderWork() {
  return Boolean(draft) && (draft.edits.size > 0 || Object.keys(draft.values).length > 0);
}

// Whoever signs in next is somebody else: what was chosen here is not theirs.
export function forgetDraft() {
  draft?.stop?.abort();
  draft = null;
  byId("file").value = "";
}

// Shows the step that a draft is at; without one, or where the next file belongs into another batch, the choice of a file.
export function openNew(into = "", retries = false) {
  if (into && (into !== draft?.into || retries !== draft?.retries)) {
    draft?.stop?.abort();
    draft = null;
  }
  [wantedName, wantedRetry] = [into, retries];
  show("into", Boolean(into));
  say("into", retries ? `The file goes into the batch “${into}” once more, and what needs no change is tried again: choose the file that it came from.`
    : `The file goes into the batch “${into}”: rows that have their card get no second one.`);
  step(draft?.step ?? "file");
}

// The file of a batch that exists, chosen on that batch's own page; whether only what needs no change is tried again.
export function takeAgain(name, file, retries) {
  [wantedName, wantedRetry] = [name, retries];
  choose(file);
}

function newDraft(file) {
  return {
    file, step: "file", into: wantedName, retries: wantedRetry, name: wantedName || file.name.replace(/\.[^.]*$/, ""),
    // What each heading is, once somebody looked; nothing before.
    chosen: null, defaults: {}, values: {},
    // Columns that several headings are together: `[heading, what it is otherwise]`, by columns.
    joins: {},
    // Whether physical cards go to their people's own addresses, where the row does not say where.
    ownAddress: false,
    // What comes first in dates, where that was said.
    dateOrder: "",
    edits: new Map(), rows: new Map(), open: new Set(), table: { headings: [], joined: [], rows: [] }, found: [],
    // Columns that the file has not, behind its own, and those that are shown though nothing is wrong in them.
    own: null, added: [], asked: new Set(),
    report: null, filter: null, visible: 50, allColumns: false, sequence: 0, skip: false, tooLarge: false,
    // Whether something was mended that the server could not be asked about.
    unchecked: false,
  };
}

function step(name) {
  if (draft) draft.step = name;
  for (const each of STEPS) show(`step-${each}`, each === name);
  const at = STEPS.indexOf(name);
  byId("steps").querySelectorAll("li").forEach((item, index) => {
    const button = item.firstElementChild;
    item.className = index < at ? "done" : "";
    if (index === at) button.setAttribute("aria-current", "step");
    else button.removeAttribute("aria-current");
    button.disabled = index > at && !reachable(item.dataset.step);
  });
}

function reachable(name) {
  if (!draft?.report) return false;
  if (name === "plan") return isIssuable();
  return name === "columns" ? draft.table.headings.length > 0 : headerIsRight();
}

function headerIsRight() {
  return draft.found.every(({ row, severity }) => row > 0 || severity === "warning");
}

function isIssuable() {
  return !draft.unchecked && (draft.report.ok || (draft.skip && canLeaveOut(draft.report)));
}

// Whether the server takes the rows that are right without the others: then it has said what they come to.
function canLeaveOut({ ok, plan: others }) {
  return !ok && Boolean(others);
}

// Why rows cannot be left out, and which are to be mended before: the server leaves none of two rows out that contradict each other.
function contradictory({ contradictions = [] }) {
  const said = contradictions.slice(0, CONTRADICTIONS_SHOWN).map(({ line, first_line: first, code }) => `${count(first)} and ${count(line)} ${CONTRADICTIONS[code] ?? "do not go together"}`);
  if (said.length === 0) return "";
  const more = contradictions.length > said.length ? `, and so on` : "";
  return `Rows cannot be left out yet, as some contradict each other, and only you know which is right: lines ${said.join("; lines ")}${more}. Mend ${contradictions.length === 1 ? "one of these" : "these"} first.`;
}

// The form that says all of the draft: its columns and edits, and then the file.
function form() {
  const data = new FormData();
  if (draft.kept) {
    draft.said = draft.kept;
  } else if (draft.chosen || draft.ownAddress || draft.dateOrder || Object.keys(draft.values).length > 0) {
    const columns = {};
    for (const { heading, column } of draft.table.headings) {
      const is = draft.chosen?.get(heading);
      if (heading && is !== undefined && is !== heading) columns[heading] = is;
      else if (heading && is === undefined && column && column !== heading) columns[heading] = column;
    }
    draft.said = { columns, joined: draft.chosen ? joinedOf(draft) : {}, defaults: draft.defaults, values: draft.values, ownAddress: draft.ownAddress && canShipToOwn(draft), dateOrder: draft.dateOrder };
  } else {
    draft.said = null;
  }
  if (draft.said) data.append("columns", toml(draft.said));
  if (draft.edits.size > 0) data.append("edits", JSON.stringify(editsOf(draft)));
  data.append("manifest", draft.file, draft.file.name);
  return data;
}

// Whether of a batch that exists only what needs no change is tried again: of that batch alone, whatever it is called here.
function isRetry(name) {
  return draft.retries && name === draft.into;
}

// Sends the draft; answers what came of it: `ok`, and what the server said. Nothing if it was stopped, or another was sent since.
async function send(path, more) {
  draft.stop?.abort();
  const [now, stop] = [draft, new AbortController()];
  draft.stop = stop;
  const number = (draft.sequence += 1);
  const name = more.name || byId("name").value || draft.name;
  busy(true);
  try {
    // Before the check: what it says of a batch is of this or later.
    const stood = await standing(name, may);
    if (stop.signal.aborted || now !== draft || number !== draft.sequence) return null;
    [draft.sentAs, draft.stood] = [name, stood];
    const query = new URLSearchParams({ ...more, name, ...(isRetry(name) ? { retry: "true" } : {}) });
    const answer = await sendForm(`${path}?${query}`, form(), stop.signal, (loaded, total) => {
      byId("sent").value = loaded / total;
      say("sent-words", loaded < total ? `${size(loaded)} of ${size(total)}` : "Checking the rows…");
    });
    if (!answer || now !== draft || number !== draft.sequence) return null;
    const { status, text } = answer;
    if (status < 300) return { ok: true, ...JSON.parse(text) };
    const error = trouble(status, text);
    if (error.problem?.code === "file_changed") throw new Error(wasChanged(draft.file));
    if (!error.problem?.problems && error.problem?.cancels === undefined && error.problem?.code !== "issued_before") throw error;
    return { ok: false, ...error.problem };
  } finally {
    if (number === draft?.sequence) busy(false);
  }
}

function busy(is) {
  show("sending", is && draft.step === "file");
  byId("sent").value = 0;
  byId("issue").disabled = is || !may("submit");
  byId("columns-go").disabled = byId("check-go").disabled = is;
  if (is && draft.step === "check") {
    say("check-said", "Checking…");
    show("check-again", false);
  }
}

// Checks the draft, and goes to the step that its answer asks for.
async function check(stay = false) {
  show("file-error", false);
  const kept = draft;
  let report;
  try {
    report = await send("/v1/checks", { table: TABLE_ROWS });
  } catch (error) {
    if (kept !== draft) return;
    if (draft.step === "check") {
      // What was mended stays, and nothing is gone on with that nobody checked.
      draft.unchecked = true;
      step("check");
      for (const id of ["check-go", "check-skip", "check-whole"]) show(id, false);
      show("check-again", true);
      if (error instanceof NeedsToken) throw error;
      return say("check-said", `Not checked yet; what you mended is kept. ${error.message}`);
    }
    if (draft.step !== "file") throw error;
    show("file-error", true);
    byId("file-error").textContent = error.message;
    return;
  }
  if (!report) return;
  draft.unchecked = false;
  draft.report = report;
  draft.found = report.ok ? report.warnings : report.problems ?? [];
  draft.tooLarge = !report.table;
  if (report.table) {
    draft.table = withAdded(draft, report.table);
    for (const { line, cells } of report.table.rows) draft.rows.set(line, cells);
  } else if (draft.found.length === 0 && !report.ok) {
    show("file-error", true);
    byId("file-error").textContent = report.detail;
    step("file");
    return;
  }
  if (draft.kept && !headerIsRight()) {
    // The file has other columns than the one before.
    draft.kept = draft.said = null;
    return check(stay);
  }
  if (draft.kept && report.table) takeKept();
  if (!headerIsRight()) {
    columns();
    step("columns");
  } else if (!stay && report.ok && draft.found.length === 0) {
    plan();
    step("plan");
  } else {
    mending();
    step("check");
  }
  if (!stay) byId(`${draft.step}-title`)?.focus();
}

// What was said of another file's columns is this one's from now on, and can be changed.
function takeKept() {
  const { columns, joined = {}, defaults, values, ownAddress = false, dateOrder = "" } = draft.kept;
  draft.chosen = new Map(draft.table.headings.filter(({ heading }) => heading)
    .map(({ heading, column }) => [heading, columns[heading] ?? column ?? ""]));
  takeJoined(joined);
  Object.assign(draft, { defaults: { ...defaults }, values: structuredClone(values), ownAddress, dateOrder, kept: null });
}

// What was said of headings that are something together, spelt as this file spells them.
function takeJoined(joined) {
  draft.joins = {};
  for (const [column, parts] of Object.entries(joined)) {
    const spelt = parts.map((part) => [...draft.chosen.keys()].find((heading) => compared(heading) === compared(part)));
    for (const heading of spelt.filter(Boolean)) if (!draft.chosen.get(heading) || draft.chosen.get(heading) === heading) draft.chosen.set(heading, column);
    draft.joins[column] = spelt.filter(Boolean).map((heading) => [heading, draft.chosen.get(heading)]);
  }
}

function columns() {
  if (!draft.chosen) {
    const given = new Set(draft.table.headings.flatMap(({ column, proposal }) => [column, proposal]).filter(Boolean));
    draft.chosen = new Map(draft.table.headings.filter(({ heading }) => heading).map((heading) => {
      return [heading.heading, taken(heading, given, draft.table.joined)];
    }));
    draft.joins = Object.fromEntries(draft.table.joined.map(({ column, headings }) => [column, headings.map((heading) => [heading, draft.chosen.get(heading)]).filter(([, is]) => is)]));
    for (const name of DEFAULTS) if (given.has(name)) delete draft.defaults[name];
  }
  document.querySelectorAll(".file-name").forEach((element) => (element.textContent = draft.file.name));
  columnsProblems();
  showColumns(ownTable(draft), draft, columns);
  for (const name of DEFAULTS) byId(`default-${name}`).value = draft.defaults[name] ?? "";
  showMoreDefaults(draft, columnsProblems);
}

function columnsProblems() {
  showOwnAddress(draft);
  const problems = draft.found.filter(({ row }) => row === 0);
  const several = twice(draft).map(([column, headings]) => `${headings.map((heading) => `“${heading}”`).join(" and ")} are ${headings.length === 2 ? "both" : "all"} “${inWords(column)}”: leave one of them, and make the ${headings.length === 2 ? "other" : "others"} something else.`);
  byId("columns-problems").replaceChildren(...problems.filter((problem) => !isAnswered(problem)).map((problem) => make("li", { className: problem.code === "no_heading_known" ? "warning" : "" }, ofColumn(problem))),
    ...several.map((words) => make("li", {}, words)));
}

// Problems that the table of columns asks about anyway, or that what was chosen in it has answered.
function isAnswered({ code, column }) {
  const isJoined = Object.hasOwn(joinedOf(draft), column);
  const isThere = [...draft.chosen.values()].includes(column) || draft.defaults[column] || isJoined;
  if (code === "no_heading_known") return [...draft.chosen.values()].some(Boolean);
  return ["unknown_parameter", "missing_heading"].includes(code) ? draft.table.headings.length > 0 : code === "missing_column" && Boolean(isThere);
}

function mending() {
  const { report, found } = draft;
  const problems = found.filter(({ severity }) => severity === "problem");
  const invalid = report.invalid_rows ?? 0;
  say("check-title", report.ok ? (found.length ? "Nothing is wrong; some rows are to be looked at" : `Nothing is wrong with the ${counted(report.rows, "row")}`) : `${counted(invalid, "row")} of ${count(report.rows ?? 0)} cannot be issued as ${invalid === 1 ? "it is" : "they are"}`);
  const warned = report.warning_count ?? found.length - problems.length;
  const total = report.ok ? found.length : Math.max(report.problem_count ?? 0, problems.length);
  say("check-said", report.ok && !found.length ? "Look through them if you like, and go on." : report.ok ? `${counted(warned, "thing")} may be wrong. Look at ${warned === 1 ? "it" : "them"}, mend what is, and go on.${firstOf(found.length, warned)}`
    : `${counted(total, "problem")}${warned ? `, and ${counted(warned, "thing")} that may be wrong` : ""}.${draft.tooLarge ? "" : " "}${draft.tooLarge ? "" : "What you mend here is checked at once."}${firstOf(found.length, total + warned)}`);
  byId("file-problems").replaceChildren(...found.filter(({ row }) => row === 0).map(({ code, reason, column, severity }) =>
    make("li", { className: severity, title: exactly(code, reason) }, `${column ? `${inWords(column)}: ` : ""}${reasonInWords(code, reason)}`)));
  show("no-table", draft.tooLarge);
  show("all-columns-choice", !draft.tooLarge);
  show("problems-download", found.length > 0);
  if (draft.tooLarge) showLines(draft.found);
  else showMending(draft, ACTS);
  show("edits-download", canBeWritten(draft));
  show("check-again", draft.unchecked);
  show("check-go", report.ok && !draft.unchecked);
  const right = (report.rows ?? 0) - invalid;
  show("check-skip", canLeaveOut(report) && !draft.unchecked);
  show("check-whole", !report.ok && contradictory(report) !== "");
  say("check-whole", contradictory(report));
  byId("check-skip").textContent = `Leave out ${counted(invalid, "row")}, go on with ${count(right)}`;
}

const ACTS = {
  filter: (filter) => redraw({ filter, visible: 50 }),
  more: (rows) => redraw({ visible: draft.visible + rows }),
  open: (line) => {
    draft.open.add(line);
    mending();
    byId("mend-table").querySelector(`[data-place^="${line}:"]`)?.focus();
  },
  edit: (line, at, value) => {
    draft.edits.set(`${line}:${at + 1}`, { line, column: at + 1, value });
    draft.rows.get(line)[at] = value;
    attempt(() => check(true));
  },
  // Columns that are typed in for one row: behind the file's own, where it has none for them.
  add: (line, wanted) => {
    addColumns(draft, wanted);
    draft.open.add(line);
    mending();
    const at = draft.table.headings.findIndex(({ column }) => column === wanted[0]);
    byId("mend-table").querySelector(`[data-place="${line}:${at}"]`)?.focus();
  },
  word: (column, word, value) => {
    (draft.values[column] ??= {})[word] = value;
    attempt(() => check(true));
  },
  order: (order) => {
    draft.dateOrder = order;
    attempt(() => check(true));
  },
  shipToOwn: () => {
    draft.ownAddress = true;
    attempt(() => check(true));
  },
};

function redraw(change) {
  Object.assign(draft, change);
  mending();
}

function plan() {
  showPlan(draft, server, may);
}

// Makes the plan once more, for the name that is written there now; false if that cannot be issued any more.
async function planAnew(second) {
  const report = await send("/v1/checks", { table: TABLE_ROWS });
  if (!report) return false;
  Object.assign(draft, { report, found: report.ok ? report.warnings : report.problems ?? [] });
  if (!isIssuable()) {
    mending();
    step("check");
    return false;
  }
  plan();
  byId("second").checked = second;
  showWork(draft, server);
  return true;
}

// As it was agreed to: what is changed in the form meanwhile is asked about the next time.
async function issue({ name, second, start }) {
  const more = {
    name,
    ...(second ? { second_cards: "true" } : {}),
    ...(draft.skip ? { skip_invalid: "true" } : {}),
    ...(start ? { start: new Date(start).toISOString() } : {}),
    // Nothing but what was looked at.
    file_sha256: draft.report.file_sha256 ?? draft.report.plan?.file_sha256,
  };
  let batch = await send("/v1/batches", more);
  // Only the server knows how many cards the file cancels: it says so, and is told again once somebody agreed.
  if (batch?.cancels !== undefined) {
    const done = batch.cancels - cancelsLeft(draft);
    const words = `${draft.file.name} cancels ${count(batch.cancels)} cards, for ever. That cannot be undone.${done > 0 ? ` ${done === batch.cancels ? "All" : count(done)} of them are cancelled already.` : ""}`;
    if (!(await sure(words, `Cancel ${count(batch.cancels)} cards`))) return;
    batch = await send("/v1/batches", { ...more, yes_cancel: batch.cancels });
  }
  if (!batch) return;
  if (batch.batch) {
    if (draft.said) rememberColumns(batch.batch, draft.said);
    draft = null;
    wantedName = byId("start").value = "";
    wantedRetry = false;
    byId("file").value = "";
    begun(batch);
  } else if (batch.code === "issued_before") {
    // Somebody has issued them since the plan was made.
    await planAnew(second);
    showIssuedBefore(draft, batch.detail);
  } else {
    // What was right at the check is not any more.
    byId("name").value = name;
    await check();
  }
}

function choose(file) {
  if (!file) return;
  draft?.stop?.abort();
  // A file for a batch that exists mostly has the columns of the one that the batch came from.
  draft = { ...newDraft(file), kept: wantedName ? rememberedColumns(wantedName) : null };
  byId("name").value = "";
  byId("saved").value = byId("start").value = "";
  byId("keep-said").textContent = "";
  byId("all-columns").checked = false;
  show("file-error", false);
  step("file");
  if (file.size > server.upload_bytes_max) {
    show("file-error", true);
    byId("file-error").textContent = `The file is larger than the ${size(server.upload_bytes_max)} that this server takes; split it.`;
    return;
  }
  attempt(() => check());
}

// What was mended is lost with the page: the browser asks first.
window.addEventListener("beforeunload", (event) => {
  if (isUnderWork()) event.preventDefault();
});

export function startNew(attempted, onBegun) {
  [attempt, begun] = [attempted, onBegun];
  const drop = byId("drop");
  // The browser drops the file into the input, which covers the area; this only shows that it would.
  for (const type of ["dragenter", "dragover"]) drop.addEventListener(type, () => drop.classList.add("over"));
  for (const type of ["dragleave", "drop"]) drop.addEventListener(type, () => drop.classList.remove("over"));
  byId("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    // The same one may be chosen again, once it was mended: a browser tells only of another.
    target.value = "";
    choose(file);
  });
  byId("abort").addEventListener("click", () => draft?.stop?.abort());
  byId("steps").addEventListener("click", ({ target }) => {
    const name = target.closest("li")?.dataset.step;
    if (!name || (name !== "file" && !reachable(name))) return;
    if (name === "columns") columns();
    if (name === "check") mending();
    if (name === "plan") plan();
    step(name);
  });
  byId("templates").addEventListener("click", ({ target }) => {
    const { for: what, format } = target.dataset;
    if (what) attempt(async () => save(await download(`/v1/template?for=${what}&format=${format}`), `${what}.${format}`));
  });
  for (const name of DEFAULTS) {
    byId(`default-${name}`).addEventListener("input", ({ target }) => {
      const value = target.value.trim().toLowerCase();
      if (value) draft.defaults[name] = value;
      else delete draft.defaults[name];
      // At once, and not when it is left: what is clicked on next is not to move away.
      columnsProblems();
    });
  }
  byId("own-address").addEventListener("change", ({ target }) => (draft.ownAddress = target.checked));
  byId("saved").addEventListener("change", ({ target }) => attempt(async () => {
    if (!target.value) return;
    // As it was kept: what is changed in it here is this file's own.
    const { columns: kept, joined, defaults, values, own_address: ownAddress, date_order: order } = await get(`/v1/columns/${encodeURIComponent(target.value)}`);
    const spelt = new Map(Object.entries(kept).map(([heading, column]) => [compared(heading), column]));
    for (const { heading } of draft.table.headings) {
      const column = spelt.get(compared(heading));
      if (heading && column !== undefined) draft.chosen.set(heading, column);
    }
    takeJoined(joined);
    Object.assign(draft, { defaults, values, ownAddress, dateOrder: order ?? "" });
    columns();
  }));
  byId("columns-go").addEventListener("click", () => {
    // The server could say no more than that.
    if (twice(draft).length > 0) byId("columns-title").focus();
    else attempt(() => check());
  });
  byId("check-again").addEventListener("click", () => {
    byId("check-title").focus();
    attempt(() => check(true));
  });
  byId("check-go").addEventListener("click", () => {
    draft.skip = false;
    plan();
    step("plan");
    byId("plan-title").focus();
  });
  byId("check-skip").addEventListener("click", () => {
    draft.skip = true;
    plan();
    step("plan");
    byId("plan-title").focus();
  });
  byId("all-columns").addEventListener("change", ({ target }) => redraw({ allColumns: target.checked }));
  byId("edits-undo").addEventListener("click", () => {
    draft.edits.clear();
    draft.open.clear();
    draft.asked.clear();
    Object.assign(draft, { values: {}, added: [], own: null });
    draft.rows.clear();
    attempt(() => check(true));
  });
  byId("edits-download").addEventListener("click", () => attempt(() => mendedFile(draft)));
  byId("problems-download").addEventListener("click", () => {
    const rows = draft.found.map((one) => [one.line, one.row_id, one.column, one.severity, words(one)]);
    save(listed([["Line", "Row", "Column", "How bad", "What is wrong"], ...rows]), `${draft.name}.problems.csv`);
  });
  byId("keep").addEventListener("click", () => attempt(keep));
  byId("second").addEventListener("change", () => showWork(draft, server));
  byId("step-plan").addEventListener("submit", (event) => {
    event.preventDefault();
    if (isAsking) return;
    isAsking = true;
    attempt(async () => {
      const [name, second, start] = [byId("name").value || draft.name, byId("second").checked, byId("start").value];
      // What the plan says of a batch is so of its name and of how it stood: somebody else may have sent the same file meanwhile.
      const stands = await standing(name, may);
      const isOther = draft.sentAs !== name || stands === null || draft.stood !== stands;
      if (isOther && !(await planAnew(second))) return;
      if (!second && issuedElsewhere(draft)) return showIssuedBefore(draft);
      const question = lastQuestion(draft, server, { name, second, start });
      if (question && !(await isMeant(question))) return;
      if (!(await isWantedAtOnce(name, start, server, may))) return;
      await issue({ name, second, start });
    }).finally(() => (isAsking = false));
  });
}

function isMeant({ words, number }) {
  const yes = byId("issue").textContent;
  return number === null ? sure(words, yes, server.mode === "live" ? "danger" : "main") : sureOf(number, words, yes);
}

async function keep() {
  const name = byId("keep-name").value.trim();
  if (!name) return byId("keep-name").focus();
  const columns = Object.fromEntries(draft.chosen);
  const text = toml({ columns, joined: joinedOf(draft), defaults: draft.defaults, values: draft.values, ownAddress: draft.ownAddress && canShipToOwn(draft), dateOrder: draft.dateOrder });
  const path = `/v1/columns/${encodeURIComponent(name)}`;
  try {
    await putText(path, text);
  } catch (error) {
    if (error.problem?.status === 400) return say("keep-said", `${error.message}.`);
    if (error.problem?.status !== 409) throw error;
    if (!(await sure(`${error.message}.\nReplace it?`, "Replace it"))) return;
    await putText(`${path}?replace=true`, text);
  }
  say("keep-said", `Kept as “${name}”.`);
}

