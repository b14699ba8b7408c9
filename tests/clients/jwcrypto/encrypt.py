# Python, PyPI `jwcrypto`.
# snippet begins
import json
import re
from urllib.request import urlopen

from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK


def encrypt_pin(pin: str, url: str = "https://issuing-key.stripe.com/v1/keys") -> str:
    if not re.fullmatch("[0-9]{4}", pin):
        raise ValueError("a PIN is four digits")
    with urlopen(url) as answer:
        key = json.load(answer)
    header = {"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": key["key_id"]}
    jwe = JWE(pin.encode(), json.dumps(header))
    jwe.add_recipient(JWK(**key["jwk"]))
    return jwe.serialize(compact=True)
# snippet ends


def encrypt_as_asked(pin, form, key, header):
    public = JWK.from_pem(key["pkcs8"].encode()) if form == "pem" else JWK(**key["jwk"])
    jwe = JWE(pin.encode(), json.dumps(header))
    jwe.add_recipient(public)
    return jwe.serialize(compact=True)


if __name__ == "__main__":
    from asked import answer

    answer(encrypt_pin, encrypt_as_asked)
