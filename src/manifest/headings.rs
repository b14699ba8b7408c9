//! What people call columns, in the languages of those who make such files.

use super::dates::DATE_OF_BIRTH;

/// Headings, as [`letters_of`] has them, and the columns that they mostly are.
const HEADINGS: [(&str, &[&str]); 16] = [
    (
        "row_id",
        &[
            "rowid",
            "row",
            "rowno",
            "rownumber",
            "id",
            "no",
            "nr",
            "number",
            "employeeid",
            "employeeno",
            "employeenumber",
            "staffid",
            "staffno",
            "staffnumber",
            "personnelnumber",
            "personalnummer",
            "personalnr",
            "persnr",
            "mitarbeiternummer",
            "mitarbeiternr",
            "matricule",
            "matricola",
            "numeroempleado",
            "númeroempleado",
            "personeelsnummer",
            "personeelsnr",
            "nºempleado",
            "nrpracownika",
            "numéroemployé",
            "empid",
            "payrollnumber",
        ],
    ),
    (
        "cardholder[name]",
        &[
            "name",
            "fullname",
            "employee",
            "employeename",
            "person",
            "cardholder",
            "cardholdername",
            "holder",
            "mitarbeiter",
            "mitarbeitername",
            "vollständigername",
            "karteninhaber",
            "nom",
            "nomcomplet",
            "nombre",
            "nombrecompleto",
            "nome",
            "nomecompleto",
            "naam",
            "volledigenaam",
            "nameoncard",
            "imięinazwisko",
            "nazwiskoiimię",
            "apellidosynombre",
        ],
    ),
    (
        "cardholder[individual][first_name]",
        &["firstname", "givenname", "forename", "vorname", "prénom", "prenom", "voornaam", "imię", "imie"],
    ),
    (
        "cardholder[individual][last_name]",
        &[
            "lastname",
            "surname",
            "familyname",
            "nachname",
            "familienname",
            "nomdefamille",
            "apellido",
            "apellidos",
            "cognome",
            "achternaam",
            "primerapellido",
            "nazwisko",
        ],
    ),
    (
        DATE_OF_BIRTH,
        &[
            "dateofbirth",
            "birthdate",
            "birthday",
            "dob",
            "born",
            "geburtsdatum",
            "geburtstag",
            "gebdatum",
            "gebdat",
            "geburtsdat",
            "geboren",
            "geborenam",
            "datedenaissance",
            "datenaissance",
            "néele",
            "fechadenacimiento",
            "fechanacimiento",
            "datadinascita",
            "datanascita",
            "datadenascimento",
            "geboortedatum",
            "dataurodzenia",
        ],
    ),
    (
        "cardholder[email]",
        &[
            "email",
            "mail",
            "emailaddress",
            "emailadresse",
            "mailadresse",
            "courriel",
            "adressemail",
            "correo",
            "correoelectrónico",
            "correoelectronico",
            "emailadres",
            "adresseemail",
            "adresseélectronique",
            "indirizzoemail",
            "workemail",
            "businessemail",
            "companyemail",
            "correoelectronicolaboral",
            "adresemail",
        ],
    ),
    (
        "cardholder[phone_number]",
        &[
            "phone",
            "phonenumber",
            "phoneno",
            "telephone",
            "telephonenumber",
            "mobile",
            "mobilephone",
            "mobilenumber",
            "cell",
            "telefon",
            "telefonnummer",
            "telefonnr",
            "tel",
            "handy",
            "handynummer",
            "mobil",
            "mobilnummer",
            "téléphone",
            "portable",
            "teléfono",
            "telefono",
            "telefoon",
            "telefoonnummer",
            "téléphoneportable",
            "telephoneportable",
            "numérodetéléphone",
            "teléfonomóvil",
            "telefonomovil",
            "móvil",
            "cellulare",
            "mobiel",
            "mobielnummer",
            "mobileno",
            "telefonkomórkowy",
            "numertelefonu",
            "mobiltelefon",
        ],
    ),
    (
        "cardholder[billing][address][line1]",
        &[
            "street",
            "address",
            "addressline",
            "addressline1",
            "line1",
            "strasse",
            "strassehausnummer",
            "adresse",
            "anschrift",
            "rue",
            "calle",
            "dirección",
            "direccion",
            "indirizzo",
            "adres",
            "straat",
            "address1",
            "homeaddress",
            "streetaddress",
            "domicilio",
            "ulica",
            "postadresse",
        ],
    ),
    (
        "cardholder[billing][address][line2]",
        &["addressline2", "line2", "adresszusatz", "complémentdadresse", "address2"],
    ),
    (
        "cardholder[billing][address][postal_code]",
        &[
            "zip",
            "zipcode",
            "postcode",
            "postalcode",
            "plz",
            "postleitzahl",
            "codepostal",
            "códigopostal",
            "codigopostal",
            "cap",
            "cp",
            "zippostalcode",
            "kodpocztowy",
            "eircode",
        ],
    ),
    (
        "cardholder[billing][address][city]",
        &[
            "city",
            "town",
            "ort",
            "wohnort",
            "stadt",
            "ville",
            "ciudad",
            "città",
            "citta",
            "plaats",
            "woonplaats",
            "población",
            "poblacion",
            "localidad",
            "comune",
            "località",
            "miejscowość",
            "miejscowosc",
            "miasto",
            "gemeente",
            "towncity",
        ],
    ),
    (
        "cardholder[billing][address][state]",
        &[
            "state",
            "province",
            "region",
            "bundesland",
            "kanton",
            "région",
            "provincia",
            "provincie",
            "stateprovince",
            "county",
            "województwo",
        ],
    ),
    (
        "cardholder[billing][address][country]",
        &["country", "land", "pays", "país", "pais", "paese", "nazione", "kraj"],
    ),
    ("type", &["cardtype", "kartenart", "kartentyp", "typedecarte", "tipodetarjeta", "tipodicarta"]),
    ("currency", &["currency", "währung", "waehrung", "devise", "moneda", "valuta", "waluta"]),
    ("status", &["cardstatus", "kartenstatus"]),
];

/// Headings of what Stripe takes in no one column: a month with its year.
const IN_NO_COLUMN: [&str; 7] =
    ["expiry", "expirydate", "expires", "expiration", "expirationdate", "validuntil", "gültigbis"];

/// Whether no column of Stripe's holds what stands under such a heading, however alike their letters are.
pub(super) fn is_in_no_column(heading: &str) -> bool {
    IN_NO_COLUMN.contains(&letters_of(heading).as_str())
}

/// Whether a heading says cardholder: some have their names under it, others Stripe's ids.
pub(super) fn says_cardholder(heading: &str) -> bool {
    letters_of(heading) == "cardholder"
}

/// The column that a heading mostly is.
pub(super) fn column_called(heading: &str) -> Option<&'static str> {
    // Spelt as Stripe does it is Stripe's: the id.
    if heading == "cardholder" {
        return None;
    }
    let letters = letters_of(heading);
    HEADINGS.iter().find(|(_, names)| names.contains(&letters.as_str())).map(|(column, _)| *column)
}

/// Its letters and digits, in small ones.
pub(super) fn letters_of(heading: &str) -> String {
    // `Employee #` is a number, and no employee.
    let heading = heading.to_lowercase().replace(['#', '№'], "no");
    let letters: String = heading.chars().filter(|letter| letter.is_alphanumeric()).collect();
    letters.replace('ß', "ss")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_call_columns_is_understood() {
        for (heading, column) in [
            ("Name", Some("cardholder[name]")),
            ("E-Mail", Some("cardholder[email]")),
            ("Personal-Nr.", Some("row_id")),
            ("PLZ", Some("cardholder[billing][address][postal_code]")),
            ("Straße", Some("cardholder[billing][address][line1]")),
            ("Card holder", Some("cardholder[name]")),
            ("Date of birth", Some(DATE_OF_BIRTH)),
            ("Geb.-Datum", Some(DATE_OF_BIRTH)),
            ("Date de naissance", Some(DATE_OF_BIRTH)),
            ("cardholder", None),
            ("Expiry", None),
            ("Gehalt", None),
            ("", None),
        ] {
            assert_eq!(column_called(heading), column, "{heading}");
        }
    }

    #[test]
    fn each_name_is_one_columns_and_written_as_it_is_looked_for() {
        let mut names: Vec<&str> = HEADINGS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        assert!(names.iter().all(|name| letters_of(name) == *name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
