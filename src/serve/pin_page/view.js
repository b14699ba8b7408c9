// Showing a PIN: it comes in a frame of Stripe's (Issuing Elements), which this page cannot read. Nothing is used up before the
// cardholder asks for it.

import { byId, dateWords, forgetLink, link, say, saySilence, show, showCard, timeWords } from "./page.js";
import { post, Trouble } from "./server.js";

// How long Stripe's script may take to load, and a detail to show before the page says what to do.
const SCRIPT_MS_MAX = 20_000;
const SHOWN_MS_MAX = 15_000;

// Elements of Stripe's, and what they are called, in the order in which they are shown.
const DETAILS = {
  pin: ["issuingCardPinDisplay", "labelPin"],
  number: ["issuingCardNumberDisplay", "labelNumber"],
  expiry: ["issuingCardExpiryDisplay", "labelExpiry"],
  cvc: ["issuingCardCvcDisplay", "labelCvc"],
};

const dark = window.matchMedia("(prefers-color-scheme: dark)");
let order = null;
let stripe = null;
let asking = false;
let mounted = [];

function tellProblem(key, values) {
  byId("problem").hidden = !key;
  if (key) say(byId("problem"), key, values);
  else saySilence(byId("problem"));
}

function wordsOf({ code, seconds }) {
  switch (code) {
    case "lost": return ["viewLost"];
    case "no_script": return ["noScript"];
    case "too_many_requests": return seconds > 0 ? ["tooMany", () => ({ when: timeWords(seconds) })] : ["lookLater"];
    default: return ["lookLater"];
  }
}

function loadScript(url) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const timer = setTimeout(() => reject(new Trouble("no_script")), SCRIPT_MS_MAX);
    // What blocks a script may put an empty one in its place.
    const settle = () => {
      clearTimeout(timer);
      if (typeof window.Stripe === "function") resolve();
      else reject(new Trouble("no_script"));
    };
    script.addEventListener("load", settle);
    script.addEventListener("error", settle);
    script.src = url;
    document.head.append(script);
  });
}

// The frames look like the page around them; the PIN is the largest, and a number fits the narrowest phone.
function style(name) {
  const { color, fontFamily } = getComputedStyle(byId("details"));
  const size = name === "pin" ? { fontSize: "32px", letterSpacing: "6px" } : { fontSize: "18px", letterSpacing: "1px" };
  return { base: { color, fontFamily, fontWeight: "600", lineHeight: "1.4", ...size } };
}

function ended(state) {
  forgetLink();
  show(state);
}

// Puts the details up; the first that cannot be shown says so for all, since they share one key.
function mount(nonce, ephemeralKeySecret) {
  const elements = stripe.elements();
  const { card, shows } = order.view;
  show("shown");
  say(byId("shown-status"), "fetching");
  const late = setTimeout(() => say(byId("shown-status"), "shownLate"), SHOWN_MS_MAX);
  mounted = Object.entries(DETAILS).filter(([name]) => shows.includes(name)).map(([name, [type, label]]) => {
    const [detail, term, place] = ["div", "dt", "dd"].map((kind) => document.createElement(kind));
    say(term, label);
    detail.className = name;
    detail.append(term, place);
    byId("details").append(detail);
    const element = elements.create(type, { issuingCard: card, nonce, ephemeralKeySecret, style: style(name) });
    element.on?.("ready", () => {
      clearTimeout(late);
      saySilence(byId("shown-status"));
    });
    element.on?.("loaderror", () => {
      clearTimeout(late);
      fail();
    });
    element.mount(place);
    return { name, element };
  });
}

function takeDown() {
  for (const { element } of mounted) element.destroy();
  mounted = [];
  byId("details").replaceChildren();
}

function fail() {
  takeDown();
  show("failed");
}

async function ask() {
  const { nonce, error } = await stripe.createEphemeralKeyNonce({ issuingCard: order.view.card });
  if (error) throw new Trouble("not_now");
  const path = `cards/${encodeURIComponent(order.view.card)}/ephemeral-keys`;
  const { ephemeral_key_secret: secret } = await post(path, { nonce, link });
  forgetLink();
  try {
    mount(nonce, secret);
  } catch {
    fail();
  }
}

byId("show").addEventListener("click", async () => {
  if (asking) return;
  asking = true;
  byId("show").setAttribute("aria-disabled", "true");
  tellProblem(null);
  say(byId("progress"), "fetching");
  try {
    await ask();
  } catch (trouble) {
    if (trouble.code === "link_unusable") ended("unusable");
    else if (trouble.code === "card_refused") ended("refused");
    else tellProblem(...wordsOf(trouble));
  } finally {
    asking = false;
    byId("show").removeAttribute("aria-disabled");
    saySilence(byId("progress"));
  }
});
byId("hide").addEventListener("click", () => {
  takeDown();
  show("hidden");
});
dark.addEventListener("change", () => {
  for (const { name, element } of mounted) element.update({ style: style(name) });
});
// A page that the browser keeps for its back button shows no PIN.
window.addEventListener("pagehide", () => {
  if (mounted.length === 0) return;
  takeDown();
  show("hidden");
});

async function look() {
  try {
    order = await post("pin-links/look", { link });
    if (order.kind === "choose") return location.replace(`../pin#${link}`);
    if (!stripe) {
      const { publishable_key: key, stripe_js: url, account } = order.view;
      await loadScript(url);
      // Cards of a connected account are asked for in its name.
      stripe = window.Stripe(key, account ? { stripeAccount: account } : {});
    }
  } catch (trouble) {
    if (trouble.code === "link_unusable") return ended("unusable");
    say(byId("trouble-text"), ...(trouble.code === "lost" ? ["lookLost"] : wordsOf(trouble)));
    return show("trouble");
  }
  showCard(order.last4, byId("ready-card"), byId("shown-card"));
  say(byId("ready-until"), "linkUntil", () => ({ date: dateWords(order.expires) }));
  return show("ready");
}

byId("look-again").addEventListener("click", look);
if (window.isSecureContext) look();
else show("insecure");
