// The frame of one element: it is told which card to show, asks the API for it with the ephemeral key, and shows one detail. What
// it shows never leaves it: the page around it is of another origin and hears only whether it is shown.
"use strict";

const API = `${location.protocol}//${location.hostname}:__API_PORT__`;
const VERSION = "2020-03-02";
const DETAILS = {
  issuingCardPinDisplay: { expand: "pin.number", of: (card) => card.pin.number },
  issuingCardNumberDisplay: { expand: "number", of: (card) => card.number.replace(/(.{4})(?=.)/g, "$1 ") },
  issuingCardCvcDisplay: { expand: "cvc", of: (card) => card.cvc },
  issuingCardExpiryDisplay: {
    expand: null,
    of: (card) => `${String(card.exp_month).padStart(2, "0")}/${String(card.exp_year).slice(-2)}`,
  },
};
const STYLES = [
  "backgroundColor", "color", "fontFamily", "fontSize", "fontStyle", "fontVariant", "fontWeight", "letterSpacing",
  "lineHeight", "textAlign", "textDecoration", "textShadow", "textTransform",
];

async function cardFor({ type, issuingCard, nonce, ephemeralKeySecret }) {
  const query = new URLSearchParams({ ephemeral_key_private_nonce: nonce });
  if (DETAILS[type].expand) {
    query.append("expand[]", DETAILS[type].expand);
  }
  const answer = await fetch(`${API}/v1/issuing/cards/${encodeURIComponent(issuingCard)}?${query}`, {
    headers: { Authorization: `Bearer ${ephemeralKeySecret}`, "Stripe-Version": VERSION },
    cache: "no-store",
  });
  const body = await answer.json();
  if (!answer.ok) {
    throw Object.assign(new Error(body.error.message), body.error);
  }
  return body;
}

function dress(style) {
  const value = document.getElementById("value");
  for (const name of STYLES) {
    if (typeof style?.[name] === "string") {
      value.style[name] = style[name];
    }
  }
}

async function show(order, port) {
  const value = document.getElementById("value");
  dress(order.style?.base);
  value.classList.remove("error");
  value.removeAttribute("role");
  let told;
  try {
    value.textContent = DETAILS[order.type].of(await cardFor(order));
    told = { event: "ready" };
  } catch (error) {
    value.classList.add("error");
    value.setAttribute("role", "alert");
    value.textContent = "This card’s details cannot be shown.";
    const { type = "api_connection_error", code, message } = error;
    told = { event: "loaderror", error: { type, code, message } };
  }
  port.postMessage({ ...told, height: Math.ceil(value.getBoundingClientRect().height) });
}

window.addEventListener("message", ({ source, data, ports }) => {
  if (source === window.parent && ports.length === 1 && Object.hasOwn(DETAILS, data?.type)) {
    show(data, ports[0]);
  }
});
