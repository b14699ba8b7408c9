# Python, PyPI `joserfc`.
# snippet begins
import json
import re
from urllib.request import urlopen

from joserfc import jwe
from joserfc.jwk import RSAKey


def encrypt_pin(pin: str, url: str = "https://issuing-key.stripe.com/v1/keys") -> str:
    if not re.fullmatch("[0-9]{4}", pin):
        raise ValueError("a PIN is four digits")
    with urlopen(url) as answer:
        key = json.load(answer)
    header = {"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": key["key_id"]}
    return jwe.encrypt_compact(header, pin, RSAKey.import_key(key["jwk"]), algorithms=["RSA-OAEP", "A128CBC-HS256"])
# snippet ends


def encrypt_as_asked(pin, form, key, header):
    public = RSAKey.import_key(key["pkcs8"] if form == "pem" else key["jwk"])
    # By default it takes no header member that it does not know.
    registry = jwe.JWERegistry(algorithms=["RSA-OAEP", "A128CBC-HS256"], strict_check_header=False)
    return jwe.encrypt_compact(header, pin, public, registry=registry)


if __name__ == "__main__":
    from asked import answer

    answer(encrypt_pin, encrypt_as_asked)
