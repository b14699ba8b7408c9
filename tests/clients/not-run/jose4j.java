// Java, `jose4j` (org.bitbucket.b_c:jose4j).
// snippet begins
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Map;
import org.jose4j.json.JsonUtil;
import org.jose4j.jwe.ContentEncryptionAlgorithmIdentifiers;
import org.jose4j.jwe.JsonWebEncryption;
import org.jose4j.jwe.KeyManagementAlgorithmIdentifiers;
import org.jose4j.jwk.JsonWebKey;

class Pins {
    static final String KEY_URL = "https://issuing-key.stripe.com/v1/keys";

    @SuppressWarnings("unchecked")
    static String encryptPin(String pin, String url) throws Exception {
        if (!pin.matches("[0-9]{4}")) throw new IllegalArgumentException("a PIN is four digits");
        var request = HttpRequest.newBuilder(URI.create(url)).build();
        var key = JsonUtil.parseJson(HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body());
        var jwe = new JsonWebEncryption();
        jwe.setAlgorithmHeaderValue(KeyManagementAlgorithmIdentifiers.RSA_OAEP);
        jwe.setEncryptionMethodHeaderParameter(ContentEncryptionAlgorithmIdentifiers.AES_128_CBC_HMAC_SHA_256);
        jwe.setKeyIdHeaderValue((String) key.get("key_id"));
        jwe.setKey(JsonWebKey.Factory.newJwk((Map<String, Object>) key.get("jwk")).getKey());
        jwe.setPayload(pin);
        return jwe.getCompactSerialization();
    }
}
// snippet ends
