# Ruby, the gem `jose`.
# snippet begins
require "jose"
require "json"
require "net/http"

def encrypt_pin(pin, url = "https://issuing-key.stripe.com/v1/keys")
  raise ArgumentError, "a PIN is four digits" unless pin.match?(/\A[0-9]{4}\z/)
  key = JSON.parse(Net::HTTP.get(URI(url)))
  header = { "alg" => "RSA-OAEP", "enc" => "A128CBC-HS256", "kid" => key["key_id"] }
  JOSE::JWK.from_map(key["jwk"]).block_encrypt(pin, header).compact
end
# snippet ends
