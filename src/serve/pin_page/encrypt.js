// Encrypts a PIN under Stripe's key, with nothing but the browser's own WebCrypto. The functions are those of the client that
// docs/pins.md shows (tests/clients/webcrypto/encrypt.mjs), which runs against many keys and header shapes; tests/pages/pin_pages.rs
// holds the two equal.

export function encryptPin(pin, { kid, jwk }) {
  return encryptUnder(jwk, { alg: "RSA-OAEP", enc: "A128CBC-HS256", kid }, pin);
}

const utf8 = (text) => new TextEncoder().encode(text);
const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

async function encryptUnder({ n, e }, header, pin) {
  // JWE's RSA-OAEP is the one with SHA-1; with SHA-256 it would be RSA-OAEP-256.
  const oaep = { name: "RSA-OAEP", hash: "SHA-1" };
  const publicKey = await crypto.subtle.importKey("jwk", { kty: "RSA", n, e }, oaep, false, ["encrypt"]);
  // Half of the content key is for the tag, half for the cipher (RFC 7518, section 5.2.3).
  const contentKey = crypto.getRandomValues(new Uint8Array(32));
  const iv = crypto.getRandomValues(new Uint8Array(16));
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const tagKey = await crypto.subtle.importKey("raw", contentKey.slice(0, 16), hmac, false, ["sign"]);
  const cipherKey = await crypto.subtle.importKey("raw", contentKey.slice(16), "AES-CBC", false, ["encrypt"]);

  const protectedHeader = base64url(utf8(JSON.stringify(header)));
  const encryptedKey = new Uint8Array(await crypto.subtle.encrypt(oaep, publicKey, contentKey));
  const ciphertext = new Uint8Array(await crypto.subtle.encrypt({ name: "AES-CBC", iv }, cipherKey, utf8(pin)));
  // The tag is over the header, the IV, the ciphertext and the header's length in bits, as a 64-bit number.
  const bits = new Uint8Array(8);
  new DataView(bits.buffer).setUint32(4, protectedHeader.length * 8);
  const tagged = new Uint8Array([...utf8(protectedHeader), ...iv, ...ciphertext, ...bits]);
  const tag = new Uint8Array(await crypto.subtle.sign("HMAC", tagKey, tagged)).slice(0, 16);
  return [protectedHeader, ...[encryptedKey, iv, ciphertext, tag].map(base64url)].join(".");
}
