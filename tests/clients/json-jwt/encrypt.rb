# Ruby, the gem `json-jwt`.
# snippet begins
require "json"
require "json/jwt"
require "net/http"

def encrypt_pin(pin, url = "https://issuing-key.stripe.com/v1/keys")
  raise ArgumentError, "a PIN is four digits" unless pin.match?(/\A[0-9]{4}\z/)
  key = JSON.parse(Net::HTTP.get(URI(url)))
  jwe = JSON::JWE.new(pin)
  jwe.alg = "RSA-OAEP"
  jwe.enc = "A128CBC-HS256"
  jwe.kid = key["key_id"]
  jwe.encrypt!(JSON::JWK.new(key["jwk"]).to_key).to_s
end
# snippet ends

def encrypt_as_asked(pin, form, header, url)
  key = JSON.parse(Net::HTTP.get(URI(url)))
  jwe = JSON::JWE.new(pin)
  # Its header begins empty; members come in the order in which they are set.
  JSON.parse(header).each { |name, value| jwe.header[name.to_sym] = name == "kid" ? key["key_id"] : value }
  public_key = form == "pem" ? OpenSSL::PKey::RSA.new(key["pkcs8"]) : JSON::JWK.new(key["jwk"]).to_key
  jwe.encrypt!(public_key).to_s
end

$stdout.sync = true
$stdin.each_line(chomp: true) do |line|
  name, pin, form, header = line.split("\t")
  jwe = form == "snippet" ? encrypt_pin(pin, ARGV[0]) : encrypt_as_asked(pin, form, header, ARGV[0])
  puts "#{name}\t#{jwe}"
end
