// Swift, `JOSESwift`.
// snippet begins
import Foundation
import JOSESwift

struct PinKey: Decodable {
    let key_id: String
    let jwk: RSAPublicKey
}

enum PinError: Error { case notFourDigits, noEncrypter }

func encryptPin(_ pin: String, url: String = "https://issuing-key.stripe.com/v1/keys") async throws -> String {
    guard pin.range(of: #"\A[0-9]{4}\z"#, options: .regularExpression) != nil else { throw PinError.notFourDigits }
    let request = URLRequest(url: URL(string: url)!, cachePolicy: .reloadIgnoringLocalAndRemoteCacheData)
    let (answer, _) = try await URLSession.shared.data(for: request)
    let key = try JSONDecoder().decode(PinKey.self, from: answer)
    var header = JWEHeader(keyManagementAlgorithm: .RSAOAEP, contentEncryptionAlgorithm: .A128CBCHS256)
    header.kid = key.key_id
    guard let encrypter = Encrypter(
        keyManagementAlgorithm: .RSAOAEP,
        contentEncryptionAlgorithm: .A128CBCHS256,
        encryptionKey: try key.jwk.converted(to: SecKey.self)
    ) else { throw PinError.noEncrypter }
    return try JWE(header: header, payload: Payload(Data(pin.utf8)), encrypter: encrypter).compactSerializedString
}
// snippet ends
