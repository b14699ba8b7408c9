// Elements and words. Text is always set as text: nothing that was uploaded is ever read as markup.

export function byId(id) {
  return document.getElementById(id);
}

// A text as it is shown: without the letters that nobody sees and that turn what follows round.
export function visible(text) {
  return typeof text === "string" ? text.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd") : text;
}

// Makes an element with properties (`data` and `aria` are sets of attributes) and children.
export function make(tag, { data = {}, aria = {}, on = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(data)) element.dataset[name] = value;
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  element.append(...children.filter((child) => child !== null && child !== undefined).map(visible));
  return element;
}

// A table's cell. `label` is its heading, for narrow screens.
export function cell(content, label = "", name = "") {
  return make("td", { className: name, data: { label } }, content);
}

// The fingerprint of a file: its SHA-256, as whoever holds the file can work it out, too.
export function fingerprint(digest) {
  return make("span", { className: "hint digest", title: "SHA-256" }, digest);
}

// Sets text only where it changes: a screen reader tells what changed.
export function say(id, given) {
  const words = visible(given);
  if (byId(id).textContent !== words) byId(id).textContent = words;
}

export function show(id, is) {
  byId(id).hidden = !is;
}

// Buttons of which one is pressed: `[value, words]` each. A button stays what it is while others come and go beside it: whoever is about
// to press one presses that.
export function tabs(id, choices, chosen, choose) {
  const box = byId(id);
  const before = new Map([...box.children].map((button) => [button.dataset.value, button]));
  const buttons = choices.map(([value, words]) => {
    const button = before.get(value) ?? make("button", { type: "button", data: { value } });
    if (button.textContent !== words) button.textContent = words;
    button.onclick = () => choose(value);
    button.setAttribute("aria-pressed", String(value === chosen));
    return button;
  });
  for (const button of before.values()) if (!buttons.includes(button)) button.remove();
  // What stands in its place is not moved, so that it keeps the focus.
  buttons.forEach((button, index) => box.children[index] !== button && box.insertBefore(button, box.children[index] ?? null));
}

// Makes a table body hold one row for each item, keeping rows whose item stays.
export function fill(body, items, keyOf, change) {
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, index) => {
    const key = String(keyOf(item));
    let row = known.get(key);
    known.delete(key);
    if (!row) {
      row = document.createElement("tr");
      row.dataset.key = key;
    }
    change(row, item);
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  known.forEach((row) => row.remove());
}

export function count(number) {
  return number.toLocaleString(undefined, { maximumFractionDigits: number < 100 ? 1 : 0 });
}

// `3 rows`, `1 row`.
export function counted(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}

// A time as its reader writes times.
export function time(ms, precise = "short") {
  const at = new Date(ms);
  return make("time", { dateTime: at.toISOString(), title: at.toISOString() },
    at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: precise }));
}

// A sentence of the server's with its times as its reader writes times.
export function inLocalTime(text) {
  return text.replace(/\b(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:Z| UTC)/g,
    (_, day, at) => new Date(`${day}T${at}Z`).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }));
}

export function size(bytes) {
  return bytes < 1 << 20 ? `${count(Math.ceil(bytes / 1024))} KB` : `${count(bytes / (1 << 20))} MB`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return minutes % 60 === 0 ? `${minutes / 60} h` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Asks in the page's own dialog; answers whether it was a yes. `tone` is how the yes looks: `danger` where something is lost by it.
export async function sure(words, yes, tone = "danger") {
  return (await ask(words, yes, "", tone)) !== null;
}

// Asks as `sure` does, and for a number that must be typed: what is real and cannot be taken back is not begun by a slip of the hand.
export async function sureOf(number, words, yes) {
  return (await ask(words, yes, `Type ${count(number)} to go on`, "danger", number)) !== null;
}

// How many questions were asked: one that comes while another is open takes its place.
let questions = 0;

// The number that must be typed; nothing where what is written is free.
let wanted = null;

byId("sure").querySelector("form").addEventListener("submit", (event) => {
  const isRight = wanted === null || byId("sure-input").value.replace(/\D/g, "") === String(wanted);
  if (event.submitter?.value !== "yes" || isRight) return;
  event.preventDefault();
  show("sure-wrong", true);
  byId("sure-wrong").textContent = `That is another number than ${count(wanted)}. Nothing was done.`;
  byId("sure-input").select();
});

// Asks, with a line to write where `label` says what is to be written; answers that, or nothing if it was a no.
export function ask(words, yes, label = "", tone = "danger", number = null) {
  const dialog = byId("sure");
  wanted = number;
  show("sure-wrong", false);
  if (dialog.open) dialog.close("no");
  show("sure-asks", Boolean(label));
  byId("sure-label").textContent = label;
  byId("sure-input").value = "";
  byId("sure-input").required = Boolean(label);
  byId("sure-words").textContent = visible(words);
  byId("sure-yes").textContent = yes;
  byId("sure-yes").className = tone;
  dialog.returnValue = "no";
  dialog.showModal();
  if (number !== null) byId("sure-input").focus();
  const own = (questions += 1);
  return new Promise((resolve) => {
    dialog.addEventListener("close", function closed() {
      // The close of the question before is told only now.
      if (own === questions && dialog.open) return;
      dialog.removeEventListener("close", closed);
      resolve(own === questions && dialog.returnValue === "yes" ? byId("sure-input").value.trim() : null);
    });
  });
}

// Saves text as a file.
export function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
