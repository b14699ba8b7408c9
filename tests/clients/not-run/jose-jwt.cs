// .NET, `jose-jwt`.
// snippet begins
using System.Text.Json;
using System.Text.RegularExpressions;
using Jose;

static async Task<string> EncryptPin(string pin, string url = "https://issuing-key.stripe.com/v1/keys")
{
    if (!Regex.IsMatch(pin, @"\A[0-9]{4}\z")) throw new ArgumentException("a PIN is four digits");
    using var http = new HttpClient();
    using var key = JsonDocument.Parse(await http.GetStringAsync(url));
    var jwk = key.RootElement.GetProperty("jwk");
    var publicKey = new Jwk(jwk.GetProperty("e").GetString(), jwk.GetProperty("n").GetString());
    var headers = new Dictionary<string, object> { ["kid"] = key.RootElement.GetProperty("key_id").GetString()! };
    // The payload must be a string: a number would be written as JSON.
    return JWT.Encode(pin, publicKey, JweAlgorithm.RSA_OAEP, JweEncryption.A128CBC_HS256, extraHeaders: headers);
}
// snippet ends
