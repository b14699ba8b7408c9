// C, `cjose` (with jansson for the key's document). cc encrypt.c -lcjose -ljansson
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// snippet begins
#include <cjose/cjose.h>
#include <jansson.h>

// `key` is what https://issuing-key.stripe.com/v1/keys answered, fetched at this moment. To be freed; NULL if it failed.
static char *encrypt_pin(const char *pin, json_t *key)
{
    if (strlen(pin) != 4 || strspn(pin, "0123456789") != 4)
        return NULL;
    cjose_err error;
    cjose_header_t *header = cjose_header_new(&error);
    cjose_header_set(header, CJOSE_HDR_ALG, CJOSE_HDR_ALG_RSA_OAEP, &error);
    cjose_header_set(header, CJOSE_HDR_ENC, CJOSE_HDR_ENC_A128CBC_HS256, &error);
    cjose_header_set(header, CJOSE_HDR_KID, json_string_value(json_object_get(key, "key_id")), &error);
    char *text = json_dumps(json_object_get(key, "jwk"), 0);
    cjose_jwk_t *jwk = cjose_jwk_import(text, strlen(text), &error);
    cjose_jwe_t *jwe = cjose_jwe_encrypt(jwk, header, (const uint8_t *)pin, strlen(pin), &error);
    char *compact = jwe ? cjose_jwe_export(jwe, &error) : NULL;
    cjose_jwe_release(jwe);
    cjose_jwk_release(jwk);
    free(text);
    cjose_header_release(header);
    return compact;
}
// snippet ends

static json_t *fetch_key(const char *url)
{
    char command[512];
    snprintf(command, sizeof command, "curl -fsS '%s'", url);
    FILE *answer = popen(command, "r");
    json_t *key = answer ? json_loadf(answer, 0, NULL) : NULL;
    if (answer == NULL || pclose(answer) != 0 || key == NULL)
        exit(1);
    return key;
}

static char *encrypt_as_asked(const char *pin, const char *asked, json_t *key)
{
    cjose_err error;
    json_t *members = json_loads(asked, 0, NULL);
    cjose_header_t *header = cjose_header_new(&error);
    const char *name;
    json_t *value;
    json_object_foreach(members, name, value)
    {
        const char *text = strcmp(name, CJOSE_HDR_KID) ? json_string_value(value)
                                                       : json_string_value(json_object_get(key, "key_id"));
        if (text != NULL)
            cjose_header_set(header, name, text, &error);
        else
            cjose_header_set_raw(header, name, json_dumps(value, JSON_ENCODE_ANY), &error);
    }
    char *text = json_dumps(json_object_get(key, "jwk"), 0);
    cjose_jwk_t *jwk = cjose_jwk_import(text, strlen(text), &error);
    cjose_jwe_t *jwe = cjose_jwe_encrypt(jwk, header, (const uint8_t *)pin, strlen(pin), &error);
    return jwe ? cjose_jwe_export(jwe, &error) : NULL;
}

int main(int count, char **arguments)
{
    char line[1024];
    while (count == 2 && fgets(line, sizeof line, stdin)) {
        char *name = strtok(line, "\t\n"), *pin = strtok(NULL, "\t\n");
        char *form = strtok(NULL, "\t\n"), *header = strtok(NULL, "\t\n");
        char *jwe = "-";
        // It reads keys as JWK only.
        if (strcmp(form, "pem")) {
            json_t *key = fetch_key(arguments[1]);
            jwe = strcmp(form, "snippet") ? encrypt_as_asked(pin, header, key) : encrypt_pin(pin, key);
        }
        if (jwe == NULL)
            return 1;
        printf("%s\t%s\n", name, jwe);
    }
    return 0;
}
