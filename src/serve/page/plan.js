// What a draft comes to: its cards, their cost and time, and how that is asked about once more.

import { byId, count, counted, duration, inLocalTime, make, show } from "/page/elements.js";

// What would be issued: of a file of which rows are left out, that of the others.
function planned({ report, skip }) {
  const whole = { pins: 0, physical: 0, virtual: 0, changes: 0, cancels: 0, cardholders: 0, known_before: 0, done_before: 0, stay_refused: 0, changed_since: 0, first_changed: [], rows: report.rows ?? 0 };
  return report.ok || !skip ? { ...whole, ...report } : { ...whole, notes: report.notes, rows: whole.rows - (report.invalid_rows ?? 0), ...report.plan };
}

// Rows that are done, in the words for what they ask: a card, a cardholder or a change.
function haveWhatTheyAskFor(rows, draft) {
  const { physical, virtual, cardholders } = planned(draft);
  if (physical + virtual > 0) return `${counted(rows, "row")} ${rows === 1 ? "has its card" : "have their cards"}`;
  if (cardholders > 0) return `${counted(rows, "row")} ${rows === 1 ? "has its cardholder" : "have their cardholders"}`;
  return `${counted(rows, "row")} ${rows === 1 ? "was" : "were"} done`;
}

function nothingTwice(rows, draft) {
  const { physical, virtual, cardholders } = planned(draft);
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
  const { rows, pins, physical, virtual, changes, cancels, cardholders, known_before: known, eta_seconds: eta, notes: said,
    done_before: done, stay_refused: stay, changed_since: changed, first_changed: names } = planned(draft);
  const figures = [
    ["Rows", rows],
    physical + virtual > 0 && ["Cards", physical + virtual],
    physical > 0 && ["Physical", physical],
    virtual > 0 && ["Virtual", virtual],
    cardholders > 0 && ["New cardholders", cardholders],
    changes > 0 && ["Changes of cards", changes],
    cancels > 0 && ["Cards cancelled", cancels],
    pins > 0 && ["With a PIN", pins],
    done > 0 && ["Done already", done],
    stay > 0 && ["Stay refused", stay],
    invalid > 0 && ["Rows left out", invalid],
  ];
  byId("plan-figures").replaceChildren(...figures.filter(Boolean).map(([name, number]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, count(number)))),
  ...(eta ? [make("div", {}, make("dt", {}, "Takes about"), make("dd", {}, duration(eta)))] : []));
  const notes = [...(said ?? [])];
  if (known) notes.unshift(`${haveWhatTheyAskFor(known, draft)} from another batch already and ${nothingTwice(known, draft)}.`);
  if (done) notes.unshift(`${haveWhatTheyAskFor(done, draft)} in the batch “${byId("name").value || draft.name}” already and ${nothingTwice(done, draft)}.`);
  if (stay) notes.unshift(staying(stay));
  if (draft.retries && draft.into === (byId("name").value || draft.name)) notes.unshift(`${counted(rows - done - known - stay, "row")} ${rows - done - known - stay === 1 ? "is" : "are"} tried now.`);
  if (changed) notes.unshift(`${counted(changed, "row")} ${changed === 1 ? "asks" : "ask"} for something else than when ${changed === 1 ? "it was" : "they were"} issued: ${names.join(", ")}${changed > names.length ? ", …" : ""}. That changes no card; a card is changed by a file of changes.`);
  if (pins > 0) notes.push(`PINs are encrypted, held in memory only, and each is used as soon as its turn comes.`, ...howLongPinsLast(eta, server));
  if (draft.edits.size > 0) notes.push(`${counted(draft.edits.size, "cell")} mended here.`);
  const warned = report.ok ? report.warning_count : 0;
  if (warned > 0) notes.push(`${counted(warned, "thing")} may be wrong: they stand under Check.`);
  if (invalid > 0) notes.push(`${counted(invalid, "row")} with problems ${invalid === 1 ? "is" : "are"} left out. Mend and upload the file again under the same name: it goes on with what is missing.`);
  byId("plan-notes").replaceChildren(...notes.map((note) => make("li", {}, inLocalTime(note))));
  if (!byId("name").value || byId("name").dataset.of !== draft.file.name) {
    byId("name").value = draft.name;
    byId("name").dataset.of = draft.file.name;
  }
  // What is tried again has no card, so that there is no second one.
  show("again", Boolean(known) && !draft.retries);
  byId("second").checked = false;
  showIssueWords(draft, server);
  show("may-not-issue", !may("submit"));
  show("plan-error", false);
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

// What the button does, with second cards or without.
export function showIssueWords(draft, server) {
  const words = issueWords(draft, server);
  byId("issue").textContent = server.approval_required ? `Send for approval: ${words[0].toLowerCase()}${words.slice(1)}` : words;
}

function issueWords(draft, server) {
  const { changes, physical, virtual, cardholders, rows: all, done_before: done, stay_refused: stay, known_before: known } = planned(draft);
  const live = server.mode === "live" ? "live " : "";
  const rows = all - done - stay - (byId("second").checked ? 0 : known);
  if (rows === 0) return "Send it once more: nothing is left to do";
  if (changes > 0) return `Change ${counted(Math.min(changes, rows), `${live}card`)}`;
  if (physical + virtual === 0 && cardholders > 0) return `Create ${counted(Math.min(cardholders, rows), `${live}cardholder`)}`;
  return `Issue ${counted(rows, `${live}card`)}`;
}

// What is asked before a draft is issued, and the number that must be typed where cards are real; nothing where a colleague is asked
// anyway.
export function lastQuestion(draft, server, { name, second, start }) {
  if (server.approval_required && !second) return null;
  const { physical, cardholders, rows, done_before: done, stay_refused: stay, known_before: known } = planned(draft);
  // Which of those that are done are physical is not known here.
  const most = done + stay > 0 || (known > 0 && !second) ? "At most " : "";
  const toDo = rows - done - stay - (second ? 0 : known);
  const what = toDo === 0 ? `Send “${name}” once more? Nothing of it is left to do.` : `${byId("issue").textContent}${second ? ", second ones too," : ""} as “${name}”?`;
  const left = draft.report.rows - rows;
  const parts = [
    toDo > 0 && physical > 0 && `${most}${counted(physical, "physical card")} will be printed and sent.`,
    toDo > 0 && cardholders > 0 && `${most}${counted(cardholders, "new cardholder")} will be created.`,
    done > 0 && `${haveWhatTheyAskFor(done, draft)} already and ${nothingTwice(done, draft)}.`,
    stay > 0 && staying(stay),
    left > 0 && `${counted(left, "row")} with problems ${left === 1 ? "is" : "are"} left out.`,
    toDo > 0 && (start ? `It starts ${new Date(start).toLocaleString()}.` : "It begins at once."),
    toDo > 0 && (server.mode === "live" ? `They are real and cannot be taken back${ofAccount(server)}.` : "No card is real: this server makes test cards."),
  ];
  return { words: [what, "", ...parts.filter(Boolean)].join("\n"), number: server.mode === "live" && toDo > 0 ? toDo : null };
}
