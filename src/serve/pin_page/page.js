// What both pages share: their language, and which of their states shows. Each state is a section, with a heading of its own.

import { LANGUAGES, TEXTS } from "./texts.js";

// The token stays in the address: the link is good until it is used, and then a reload must still work (a phone that reloads a
// tab it had put away would otherwise lose the link). It is a fragment, so no request, log or referrer has it. Once the link
// is used up, `forgetLink` takes it away.
export const link = location.hash.slice(1);

let language = preferredLanguage();
const valuesOf = new WeakMap();

export function byId(id) {
  return document.getElementById(id);
}

function preferredLanguage() {
  const wanted = (navigator.languages ?? []).map((each) => each.toLowerCase().split("-")[0]);
  return wanted.find((each) => each in TEXTS) ?? "en";
}

function phrase(key, values = {}) {
  const known = typeof values === "function" ? values() : values;
  return TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => known[name]);
}

// Gives an element a text, in the language of now and of later. Values are an object, or a function where they depend on the
// language. Text is always set as text.
export function say(element, key, values) {
  element.dataset.text = key;
  valuesOf.set(element, values);
  element.textContent = phrase(key, values);
}

export function saySilence(element) {
  delete element.dataset.text;
  element.textContent = "";
}

export function dateWords(iso) {
  return new Intl.DateTimeFormat(language, { dateStyle: "long", timeStyle: "short" }).format(new Date(iso));
}

// A span of time from now, as "in 2 minutes".
export function timeWords(seconds) {
  const words = new Intl.RelativeTimeFormat(language);
  return seconds < 90 ? words.format(Math.max(1, Math.ceil(seconds)), "second") : words.format(Math.ceil(seconds / 60), "minute");
}

function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) say(element, element.dataset.text, valuesOf.get(element));
}

// Shows one state. Its heading takes the focus, so that a screen reader reads on from there; not at the first one, where the
// reader begins by itself.
export function show(state) {
  const sections = [...document.querySelectorAll("section")];
  const first = !byId("loading").hidden;
  for (const section of sections) section.hidden = section.id !== state;
  document.body.dataset.state = state;
  const heading = byId(state).querySelector("h1");
  if (!heading) return;
  say(document.querySelector("title"), heading.dataset.text, valuesOf.get(heading));
  if (!first) heading.focus();
}

// Which card it is about, where that is known.
export function showCard(last4, ...lines) {
  if (!last4) return;
  byId("card-digits").textContent = `•••• ${last4}`;
  for (const line of lines) {
    line.hidden = false;
    say(line, "cardEnding", { last4 });
  }
}

// The link is of no use any more: it goes from the address and from the history.
export function forgetLink() {
  history.replaceState(null, "", location.pathname + location.search);
}

const choice = byId("language");
for (const [code, name] of Object.entries(LANGUAGES)) {
  const option = new Option(name, code, false, code === language);
  option.lang = code;
  choice.append(option);
}
choice.addEventListener("change", () => {
  language = choice.value;
  translate();
});
// Another link that is opened in this tab changes only the fragment, and loads nothing by itself.
window.addEventListener("hashchange", () => location.reload());
translate();
