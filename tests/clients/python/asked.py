"""What the test asks of a client in Python: lines of NAME, PIN, how the key is read, and the header, between tabs."""

import json
import sys
from urllib.request import urlopen


def answer(encrypt_pin, encrypt_as_asked):
    """Answers each line by NAME and the JWE, or `-` where the library cannot make it."""
    key_url = sys.argv[1]
    for line in sys.stdin:
        name, pin, form, header = line.rstrip("\n").split("\t")
        if form == "snippet":
            jwe = encrypt_pin(pin, key_url)
        else:
            with urlopen(key_url) as answered:
                key = json.load(answered)
            jwe = encrypt_as_asked(pin, form, key, {**json.loads(header), "kid": key["key_id"]})
        print(f"{name}\t{jwe}", flush=True)
