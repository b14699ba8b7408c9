// A stand-in for the part of Stripe.js that shows a card's details: nonces, elements, and the card without what is secret.
(() => {
  "use strict";

  const source = new URL(document.currentScript.src);
  const FRAMES = source.origin;
  const API = `${source.protocol}//${source.hostname}:__API_PORT__`;
  const VERSION = "2020-03-02";
  const TITLES = {
    issuingCardPinDisplay: "Card PIN",
    issuingCardNumberDisplay: "Card number",
    issuingCardExpiryDisplay: "Card expiry date",
    issuingCardCvcDisplay: "Card security code",
  };

  // The half of each nonce that never leaves this page.
  const privateNonces = new Map();

  class IntegrationError extends Error {
    constructor(message) {
      super(message);
      this.name = "IntegrationError";
    }
  }

  async function ask(path, request) {
    try {
      const answer = await fetch(API + path, { cache: "no-store", ...request });
      const body = await answer.json();
      return answer.ok ? { body } : { error: body.error };
    } catch {
      return { error: { type: "api_connection_error", message: "The API cannot be reached." } };
    }
  }

  class Element {
    #type;
    #options;
    #frame = null;
    #handlers = new Map();
    #destroyed = false;

    constructor(type, options) {
      this.#type = type;
      this.#options = { ...options };
    }

    mount(where) {
      if (this.#destroyed) {
        throw new IntegrationError("This element was destroyed.");
      }
      const parent = typeof where === "string" ? document.querySelector(where) : where;
      if (!parent) {
        throw new IntegrationError(`No element of the page is ${where}: the element cannot be mounted.`);
      }
      this.unmount();
      const frame = document.createElement("iframe");
      frame.title = TITLES[this.#type];
      frame.src = `${FRAMES}/v3/frame`;
      frame.referrerPolicy = "no-referrer";
      Object.assign(frame.style, { border: "0", width: "100%", height: "1.4em", display: "block" });
      frame.style.colorScheme = "light only";
      frame.addEventListener("load", () => this.#order());
      this.#frame = frame;
      parent.replaceChildren(frame);
    }

    // Tells the frame what to show, over a channel that only it can answer.
    #order() {
      const frame = this.#frame;
      if (!frame?.contentWindow) {
        return;
      }
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = ({ data }) => {
        if (this.#frame !== frame) {
          return;
        }
        frame.style.height = `${data.height}px`;
        const { event, error } = data;
        this.#emit(event, { elementType: this.#type, ...(error && { error }) });
      };
      const { issuingCard, nonce, ephemeralKeySecret, style } = this.#options;
      // A nonce that this page did not make has no private half here: the frame is told the public one, which shows nothing.
      const order = { issuingCard, ephemeralKeySecret, style, nonce: privateNonces.get(nonce) ?? nonce };
      frame.contentWindow.postMessage({ type: this.#type, ...order }, FRAMES, [port2]);
    }

    #emit(event, details) {
      for (const handler of [...(this.#handlers.get(event) ?? [])]) {
        handler(details);
      }
    }

    on(event, handler) {
      this.#handlers.set(event, [...(this.#handlers.get(event) ?? []), handler]);
      return this;
    }

    once(event, handler) {
      const first = (details) => {
        this.off(event, first);
        handler(details);
      };
      return this.on(event, first);
    }

    off(event, handler) {
      const kept = (this.#handlers.get(event) ?? []).filter((each) => handler && each !== handler);
      this.#handlers.set(event, kept);
      return this;
    }

    update(options) {
      Object.assign(this.#options, options);
      this.#order();
    }

    unmount() {
      this.#frame?.remove();
      this.#frame = null;
    }

    destroy() {
      this.unmount();
      this.#destroyed = true;
    }
  }

  function elements() {
    const made = new Map();
    return {
      create(type, options = {}) {
        if (!Object.hasOwn(TITLES, type)) {
          throw new IntegrationError(`A valid element's name must be given; there is no ${type}.`);
        }
        for (const name of ["issuingCard", "nonce", "ephemeralKeySecret"]) {
          if (typeof options[name] !== "string") {
            throw new IntegrationError(`elements.create('${type}'): ${name} is missing.`);
          }
        }
        made.set(type, new Element(type, options));
        return made.get(type);
      },
      getElement: (type) => made.get(type) ?? null,
    };
  }

  window.Stripe = function Stripe(publishableKey, { stripeAccount } = {}) {
    if (typeof publishableKey !== "string" || !publishableKey.startsWith("pk_")) {
      throw new IntegrationError("Stripe() needs a publishable key (pk_…). Never put a secret key into a page.");
    }
    return {
      elements,
      async createEphemeralKeyNonce({ issuingCard } = {}) {
        const asked = new URLSearchParams({ key: publishableKey });
        for (const [name, value] of Object.entries({ issuing_card: issuingCard, _stripe_account: stripeAccount })) {
          if (value !== undefined) {
            asked.set(name, value);
          }
        }
        const { body, error } = await ask("/v1/ephemeral_key_nonces", { method: "POST", body: asked });
        if (error) {
          return { error };
        }
        privateNonces.set(body.public_nonce, body.private_nonce);
        return { nonce: body.public_nonce };
      },
      async retrieveIssuingCard(issuingCard, { ephemeralKeySecret, nonce } = {}) {
        const query = new URLSearchParams({ ephemeral_key_private_nonce: privateNonces.get(nonce) ?? nonce });
        const headers = { Authorization: `Bearer ${ephemeralKeySecret}`, "Stripe-Version": VERSION };
        const path = `/v1/issuing/cards/${encodeURIComponent(issuingCard)}?${query}`;
        const { body, error } = await ask(path, { headers });
        return error ? { error } : { issuingCard: body };
      },
    };
  };
  window.Stripe.version = 3;
})();
