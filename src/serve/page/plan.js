// What a draft comes to: its cards, their cost and time, and how that is asked about once more.

import { byId, count, counted, duration, inLocalTime, make, show } from "/page/elements.js";
import { plainly } from "/page/http.js";
import { leftOut, leftOutWords, noLimit } from "/page/left_out.js";
import { address } from "/page/list.js";

const NOTHING = { rows: 0, pins: 0, physical: 0, virtual: 0, changes: 0, cancels: 0, cardholders: 0 };

// What would be issued: of a file of which rows are left out, that of the others.
function planned({ report, skip }) {
  const whole = { ...NOTHING, to_do: NOTHING, second_cards: NOTHING, known_before: 0, done_before: 0, stay_refused: 0, changed_since: 0, first_changed: [], rows: report.rows ?? 0 };
  return report.ok || !skip ? { ...whole, ...report } : { ...whole, notes: report.notes, rows: whole.rows - (report.invalid_rows ?? 0), ...report.plan };
}

// What is left to do of it: with second cards for those who have one from another batch, if they are wanted.
function toDo(plan, second) {
  return Object.fromEntries(Object.keys(NOTHING).map((name) => [name, plan.to_do[name] + (second ? plan.second_cards[name] : 0)]));
}

// Cards that it still cancels.
export function cancelsLeft(draft) {
  return planned(draft).to_do.cancels;
}

// What is made, as figures: `[name, number]` each.
function figuresOf({ physical, virtual, cardholders, changes, cancels, pins }) {
  return [["Cards", physical + virtual], ["Physical", physical], ["Virtual", virtual], ["New cardholders", cardholders],
    ["Changes of cards", changes], ["Cards cancelled", cancels], ["With a PIN", pins]];
}

// The batch in which all of its rows were issued, where that is another than it is to be.
export function issuedElsewhere(draft) {
  const { issued_as: other } = planned(draft);
  return other && other !== (byId("name").value || draft.name) ? other : null;
}

function linkTo(batch) {
  return make("a", { href: address(batch) }, `See “${batch}”`);
}

// Rows that ask for something else than they were issued with, named.
export function changedSince({ changed_since: changed, first_changed: names }) {
  return `${counted(changed, "row")} ${changed === 1 ? "asks" : "ask"} for something else than when ${changed === 1 ? "it was" : "they were"} issued: ${names.join(", ")}${changed > names.length ? ", …" : ""}. That changes no card; a card is changed by a file of changes.`;
}

// Rows that are done, in the words for what they ask: a card, a cardholder or a change.
export function haveWhatTheyAskFor(rows, { physical, virtual, cardholders }) {
  if (physical + virtual > 0) return `${counted(rows, "row")} ${rows === 1 ? "has its card" : "have their cards"}`;
  if (cardholders > 0) return `${counted(rows, "row")} ${rows === 1 ? "has its cardholder" : "have their cardholders"}`;
  return `${counted(rows, "row")} ${rows === 1 ? "was" : "were"} done`;
}

export function nothingTwice(rows, { physical, virtual, cardholders }) {
  if (physical + virtual + cardholders === 0) return rows === 1 ? "is not done again" : "are not done again";
  return rows === 1 ? "gets no second one" : "get no second ones";
}

// Rows that were refused, where only those are tried again that need no change.
function staying(rows) {
  return rows === 1 ? "1 row that was refused stays as it is, as it must be mended or needs a new PIN first: nothing is asked for it."
    : `${count(rows)} rows that were refused stay as they are, as they must be mended or need new PINs first: nothing is asked for them.`;
}

// Shows what the draft comes to.
export function showPlan(draft, server, may) {
  const { report, skip } = draft;
  const invalid = skip && !report.ok ? report.invalid_rows ?? 0 : 0;
  const all = planned(draft);
  const { known_before: known, eta_seconds: eta, notes: said, done_before: done, stay_refused: stay, changed_since: changed } = all;
  const other = issuedElsewhere(draft);
  const notes = [...(said ?? [])];
  if (known) notes.unshift([`${haveWhatTheyAskFor(known, all)} from ${other ? `the batch “${other}”` : "another batch"} already and ${nothingTwice(known, all)}.${other ? " " : ""}`, ...(other ? [linkTo(other)] : [])]);
  if (done) notes.unshift(`${haveWhatTheyAskFor(done, all)} in the batch “${byId("name").value || draft.name}” already and ${nothingTwice(done, all)}.`);
  if (stay) notes.unshift(staying(stay));
  if (draft.retries && draft.into === (byId("name").value || draft.name)) notes.unshift(`${counted(all.to_do.rows, "row")} ${all.to_do.rows === 1 ? "is" : "are"} tried now.`);
  if (changed) notes.unshift(changedSince(all));
  if (all.to_do.pins + all.second_cards.pins > 0) notes.push(`PINs are encrypted, held in memory only, and each is used as soon as its turn comes.`, ...howLongPinsLast(eta, server));
  if (draft.edits.size > 0) notes.push(`${counted(draft.edits.size, "cell")} mended here.`);
  const warned = report.ok ? report.warning_count : 0;
  if (warned > 0) notes.push(`${counted(warned, "thing")} may be wrong: they stand under Check.`);
  if (invalid > 0) notes.push(`${counted(invalid, "row")} with problems ${invalid === 1 ? "is" : "are"} left out. Mend and upload the file again under the same name: it goes on with what is missing.`);
  notes.push(...leftOutWords(draft));
  byId("plan-notes").replaceChildren(...notes.map((note) => make("li", {}, ...[note].flat().map((part) => (typeof part === "string" ? inLocalTime(part) : part)))));
  if (!byId("name").value || byId("name").dataset.of !== draft.file.name) {
    byId("name").value = draft.name;
    byId("name").dataset.of = draft.file.name;
  }
  // What is tried again has no card, so that there is no second one.
  show("again", Boolean(known) && !draft.retries);
  byId("second").checked = false;
  showWork(draft, server);
  show("may-not-issue", !may("submit"));
  show("plan-error", false);
}

// Why nothing is issued of rows that all have been under another name, and what can be done.
export function showIssuedBefore(draft, detail = "") {
  const other = issuedElsewhere(draft);
  const why = other ? `All of these rows were issued in the batch “${other}”.` : plainly(`${detail[0].toUpperCase()}${detail.slice(1)}.`);
  show("plan-error", true);
  byId("plan-error").replaceChildren(`${why} Nothing was issued. Send the file under that name to go on with it; or, if each is to get another card, tick “Issue second cards to them”. `,
    ...(other ? [linkTo(other)] : []));
  show("again", true);
}

// By when PINs must be used, and whether they are.
function howLongPinsLast(eta, { pin_max_age_seconds: most, approval_required: isHeld }) {
  const by = isHeld ? "from when you send it, the colleague’s look included" : "from when you send it";
  if (eta > most) return [`PINs may wait for ${duration(most)} ${by}, and this file takes about ${duration(eta)}: rows whose turn comes later are refused, and need a new PIN. Send it in smaller files.`];
  return [`PINs may wait for ${duration(most)} ${by}.`];
}

// Whose cards they are, where that is known.
export function ofAccount({ account, account_name: name }, what = "they are made") {
  return account ? `: ${what} on Stripe’s account ${name ? `${name} (${account})` : account}` : "";
}

// The figures, and what the button does: with second cards or without.
export function showWork(draft, server) {
  const { report, skip } = draft;
  const all = planned(draft);
  const { rows, done_before: done, known_before: known, stay_refused: stay, eta_seconds: eta } = all;
  const second = byId("second").checked;
  const invalid = skip && !report.ok ? report.invalid_rows ?? 0 : 0;
  const figures = [["Rows", rows], ...[...figuresOf(toDo(all, second)), ["Done already", done], ["Done in another batch", second ? 0 : known], ["Stay refused", stay], ["Rows left out", invalid]].filter(([, number]) => number > 0)];
  byId("plan-figures").replaceChildren(...figures.map(([name, number]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, count(number)))),
  ...(eta ? [make("div", {}, make("dt", {}, "Takes about"), make("dd", {}, duration(eta)))] : []));
  const words = issueWords(draft, server);
  byId("issue").textContent = server.approval_required && !(issuedElsewhere(draft) && !second) ? `Send for approval: ${words[0].toLowerCase()}${words.slice(1)}` : words;
}

function issueWords(draft, server) {
  const { rows, changes, physical, virtual, cardholders } = toDo(planned(draft), byId("second").checked);
  const live = server.mode === "live" ? "live " : "";
  const other = issuedElsewhere(draft);
  if (rows === 0 && other) return `Nothing to issue: all of it was issued as “${other}”`;
  if (rows === 0) return "Send it once more: nothing is left to do";
  if (changes > 0) return `Change ${counted(changes, `${live}card`)}`;
  if (physical + virtual === 0 && cardholders > 0) return `Create ${counted(cardholders, `${live}cardholder`)}`;
  return `Issue ${counted(rows, `${live}card`)}`;
}

// What is asked before a draft is issued, and the number that must be typed where cards are real; nothing where a colleague is asked
// anyway.
export function lastQuestion(draft, server, { name, second, start }) {
  if (server.approval_required && !second) return null;
  const all = planned(draft);
  const { done_before: done, stay_refused: stay } = all;
  const { rows, physical, cardholders } = toDo(all, second);
  const what = rows === 0 ? `Send “${name}” once more? Nothing of it is left to do.` : `${byId("issue").textContent}${second ? ", second ones too," : ""} as “${name}”?`;
  const left = draft.report.rows - all.rows;
  const parts = [
    physical > 0 && `${counted(physical, "physical card")} will be printed and sent.`,
    cardholders > 0 && `${counted(cardholders, "new cardholder")} will be created.`,
    done > 0 && `${haveWhatTheyAskFor(done, all)} already and ${nothingTwice(done, all)}.`,
    stay > 0 && staying(stay),
    left > 0 && `${counted(left, "row")} with problems ${left === 1 ? "is" : "are"} left out.`,
    ...leftOut(draft).filter(({ amount }) => amount).map(({ heading }) => noLimit(heading)),
    rows > 0 && (start ? `It starts ${new Date(start).toLocaleString()}.` : "It begins at once."),
    rows > 0 && (server.mode === "live" ? `They are real and cannot be taken back${ofAccount(server)}.` : "No card is real: this server makes test cards."),
  ];
  return { words: [what, "", ...parts.filter(Boolean)].join("\n"), number: server.mode === "live" && rows > 0 ? rows : null };
}
