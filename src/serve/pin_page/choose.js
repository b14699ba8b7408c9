// Choosing a PIN: it is typed twice, held against the policy, encrypted here under the key of this moment, and sent.

import { encryptPin } from "./encrypt.js";
import { byId, dateWords, forgetLink, link, say, saySilence, show, showCard, timeWords } from "./page.js";
import { rules, weakness } from "./policy.js";
import { pinKey, post, Trouble } from "./server.js";

// How often a PIN is encrypted anew, because Stripe's key changed meanwhile.
const TRIES_MAX = 3;

const pin = byId("pin");
const repeat = byId("repeat");
const submit = byId("submit");
const progress = byId("progress");
const problem = byId("problem");
let order = null;
let sending = false;

// What is wrong with a field, shown beside it and tied to it; nothing where it is right.
function tell(field, wrong) {
  const error = byId(`${field.id}-error`);
  error.hidden = !wrong;
  if (wrong) {
    say(error, wrong.key, wrong.values);
    field.setAttribute("aria-invalid", "true");
  } else {
    saySilence(error);
    field.removeAttribute("aria-invalid");
  }
}

function tellProblem(key, values) {
  problem.hidden = !key;
  if (key) say(problem, key, values);
  else saySilence(problem);
}

// Whether both fields are right; otherwise the first that is not has the focus.
function fieldsAreRight() {
  const wrong = weakness(pin.value, order.policy);
  const differs = repeat.value === "" ? { key: "repeatMissing" } : repeat.value !== pin.value ? { key: "differs" } : null;
  tell(pin, wrong);
  // While the first is wrong, the second is not worth a word.
  tell(repeat, wrong ? null : differs);
  if (wrong) pin.focus();
  else if (differs) repeat.focus();
  return !wrong && !differs;
}

function reveal(digits) {
  pin.type = repeat.type = digits ? "text" : "password";
  say(byId("reveal"), digits ? "hideDigits" : "showDigits");
}

// The button stays in the order of the tab key while a PIN is sent, and does nothing.
function busy(now) {
  sending = now;
  submit.setAttribute("aria-disabled", String(now));
  pin.readOnly = repeat.readOnly = now;
  if (now) say(progress, "sending");
  else saySilence(progress);
}

function emptyFields() {
  pin.value = repeat.value = "";
}

// Encrypts and sends; again when the key was changed between the two.
async function send() {
  for (let tries = 1; ; tries += 1) {
    const key = await pinKey(order.key_url);
    const jwe = await encryptPin(pin.value, key).catch(() => {
      throw new Trouble("no_key");
    });
    try {
      return await post("pin-links/choose", { link, pin: jwe });
    } catch (trouble) {
      if (trouble.code !== "stale_key" || tries === TRIES_MAX) throw trouble;
    }
  }
}

function taken() {
  emptyFields();
  byId("pin-form").remove();
  say(byId("taken-text"), order.changes_card ? "takenChange" : "takenNew");
  byId("taken-old").hidden = !order.changes_card;
  forgetLink();
  show("taken");
}

// An end without a PIN: the fields go, too.
function ended(state) {
  emptyFields();
  byId("pin-form").remove();
  // A browser sends again by itself when a connection breaks: what came first may well have been taken.
  if (state === "unusable" && order) {
    say(byId("unusable-text"), "unusableSent");
    saySilence(byId("unusable-done"));
  }
  forgetLink();
  show(state);
}

function failed(trouble) {
  if (trouble.code === "link_unusable") return ended("unusable");
  if (trouble.code === "card_refused") return ended("refused");
  say(submit, "tryAgain");
  return tellProblem(...wordsOf(trouble));
}

function wordsOf({ code, seconds }) {
  switch (code) {
    case "lost": return ["lost"];
    case "no_key": return ["noKey"];
    case "pin_unusable": return ["pinUnusable"];
    case "too_many_requests": return seconds > 0 ? ["tooMany", () => ({ when: timeWords(seconds) })] : ["notNow"];
    default: return ["notNow"];
  }
}

byId("pin-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (sending) return;
  tellProblem(null);
  if (!fieldsAreRight()) return;
  reveal(false);
  busy(true);
  try {
    await send();
    taken();
  } catch (trouble) {
    failed(trouble);
  } finally {
    busy(false);
  }
});
byId("reveal").addEventListener("click", () => reveal(pin.type === "password"));
// What was wrong is not said any longer than it is.
for (const field of [pin, repeat]) {
  field.addEventListener("input", () => {
    if (field.getAttribute("aria-invalid") === "true") tell(field, null);
  });
}
// A page that the browser keeps for its back button keeps no PIN.
window.addEventListener("pagehide", emptyFields);

function present() {
  showCard(order.last4, byId("form-card"));
  say(byId("form-title"), order.changes_card ? "changeTitle" : "newTitle");
  say(byId("form-lead"), order.changes_card ? "changeLead" : "newLead");
  say(byId("form-until"), "linkUntil", () => ({ date: dateWords(order.expires) }));
  byId("pin-rules").replaceChildren(...rules(order.policy).map(({ key, values }) => {
    const line = document.createElement("li");
    say(line, key, values);
    return line;
  }));
  show("form");
}

async function look() {
  try {
    order = await post("pin-links/look", { link });
  } catch (trouble) {
    if (trouble.code === "link_unusable") return ended("unusable");
    say(byId("trouble-text"), ...(trouble.code === "lost" ? ["lookLost"] : trouble.seconds ? wordsOf(trouble) : ["lookLater"]));
    return show("trouble");
  }
  if (order.kind === "view") return location.replace(`pin/view#${link}`);
  return present();
}

byId("look-again").addEventListener("click", look);
// Without WebCrypto, which browsers have on safe connections only, no PIN may be typed at all.
if (!window.isSecureContext || !window.crypto?.subtle) show("insecure");
else look();
