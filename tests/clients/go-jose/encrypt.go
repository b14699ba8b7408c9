// Go, `go-jose`: Debian's package of version 2. Versions 3 and 4 have the same calls under
// `github.com/go-jose/go-jose/v3` and `/v4`.
package main

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"

	jose "gopkg.in/square/go-jose.v2"
)

// snippet begins
const keyURL = "https://issuing-key.stripe.com/v1/keys"

var fourDigits = regexp.MustCompile(`^[0-9]{4}$`)

type pinKey struct {
	ID  string          `json:"key_id"`
	JWK jose.JSONWebKey `json:"jwk"`
	PEM string          `json:"pkcs8"`
}

func fetchKey(url string) (key pinKey, err error) {
	answer, err := http.Get(url)
	if err != nil {
		return key, err
	}
	defer answer.Body.Close()
	return key, json.NewDecoder(answer.Body).Decode(&key)
}

func encryptPIN(pin, url string) (string, error) {
	if !fourDigits.MatchString(pin) {
		return "", errors.New("a PIN is four digits")
	}
	key, err := fetchKey(url)
	if err != nil {
		return "", err
	}
	// Key, not the JSONWebKey itself: its kid is the key_id whatever the JWK says.
	recipient := jose.Recipient{Algorithm: jose.RSA_OAEP, Key: key.JWK.Key, KeyID: key.ID}
	encrypter, err := jose.NewEncrypter(jose.A128CBC_HS256, recipient, nil)
	if err != nil {
		return "", err
	}
	jwe, err := encrypter.Encrypt([]byte(pin))
	if err != nil {
		return "", err
	}
	return jwe.CompactSerialize()
}

// snippet ends

func encryptAsAsked(pin, form, header, url string) (string, error) {
	key, err := fetchKey(url)
	if err != nil {
		return "", err
	}
	recipient := jose.Recipient{Algorithm: jose.RSA_OAEP, Key: key.JWK.Key, KeyID: key.ID}
	if form == "pem" {
		block, _ := pem.Decode([]byte(key.PEM))
		if recipient.Key, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			return "", err
		}
	}
	var members map[string]interface{}
	if err := json.Unmarshal([]byte(header), &members); err != nil {
		return "", err
	}
	options := &jose.EncrypterOptions{}
	for name, value := range members {
		if name != "alg" && name != "enc" && name != "kid" {
			options.WithHeader(jose.HeaderKey(name), value)
		}
	}
	encrypter, err := jose.NewEncrypter(jose.A128CBC_HS256, recipient, options)
	if err != nil {
		return "", err
	}
	jwe, err := encrypter.Encrypt([]byte(pin))
	if err != nil {
		return "", err
	}
	return jwe.CompactSerialize()
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		asked := strings.Split(lines.Text(), "\t")
		jwe, err := "", error(nil)
		if asked[2] == "snippet" {
			jwe, err = encryptPIN(asked[1], os.Args[1])
		} else {
			jwe, err = encryptAsAsked(asked[1], asked[2], asked[3], os.Args[1])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("%s\t%s\n", asked[0], jwe)
	}
}
