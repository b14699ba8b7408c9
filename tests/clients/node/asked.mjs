// What the test asks of a client in JavaScript: lines of NAME, PIN, how the key is read, and the header, between tabs.
import { createInterface } from 'node:readline';
import { webcrypto } from 'node:crypto';

// Node 18 has WebCrypto, but not yet as a global.
globalThis.crypto ??= webcrypto;

export const keyUrl = process.argv[2];

/// Answers each line by NAME and the JWE, or `-` where the library cannot make it.
export async function answer(encryptPin, encryptAsAsked) {
  for await (const line of createInterface({ input: process.stdin })) {
    const [name, pin, form, header] = line.split('\t');
    const jwe = form === 'snippet'
      ? await encryptPin(pin, keyUrl)
      : await encryptAsAsked(pin, form, (kid) => ({ ...JSON.parse(header), kid }));
    console.log(`${name}\t${jwe}`);
  }
}
