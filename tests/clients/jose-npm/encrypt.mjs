// JavaScript, npm `jose`.
import { answer, keyUrl } from './asked.mjs';
// snippet begins
import { CompactEncrypt, importJWK } from 'jose';

export async function encryptPin(pin, url = 'https://issuing-key.stripe.com/v1/keys') {
  if (!/^\d{4}$/.test(pin)) throw new Error('a PIN is four digits');
  const { key_id: kid, jwk } = await (await fetch(url, { cache: 'no-store' })).json();
  const key = await importJWK(jwk, 'RSA-OAEP');
  return new CompactEncrypt(new TextEncoder().encode(pin))
    .setProtectedHeader({ alg: 'RSA-OAEP', enc: 'A128CBC-HS256', kid })
    .encrypt(key);
}
// snippet ends
import { importSPKI } from 'jose';

await answer(encryptPin, async (pin, form, headerOf) => {
  const { key_id: kid, jwk, pkcs8 } = await (await fetch(keyUrl)).json();
  const key = form === 'pem' ? await importSPKI(pkcs8, 'RSA-OAEP') : await importJWK(jwk, 'RSA-OAEP');
  return new CompactEncrypt(new TextEncoder().encode(pin)).setProtectedHeader(headerOf(kid)).encrypt(key);
});
