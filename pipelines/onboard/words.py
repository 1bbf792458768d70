"""The words by which people name columns, in several languages, and how well a name fits a role.

A name is cut into its words: `CustomerID` is `customer` and `id`. Names alone decide nothing: `roles.py` asks
the values, too.
"""

from __future__ import annotations

import re
from typing import Final, Literal

Role = Literal["user", "item", "time", "type", "session", "label", "quantity"]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


WORDS: Final[dict[str, frozenset[str]]] = {
    "user": _set(
        "user users userid uid customer customers customerid cust client clientid member memberid "
        "visitor visitorid fullvisitorid buyer account person profile household subscriber player "
        "reader student learner shopper patient viewer listener reviewer reviewerid rater guest "
        "contact consumer cookie device kunde kunden kundennr kundennummer kundenid nutzer benutzer "
        "besucher mitglied haushalt utilisateur acheteur abonne membre cliente clientes usuario "
        "comprador miembro utente acquirente utilizador klant gebruiker lid anvandare bruger kund "
        "klient uzytkownik patron borrower pseudo leser lesernr ausleiher entleiher lecteur lector"
    ),
    "item": _set(
        "item items itemid product products productid prod sku article articleid movie movieid film "
        "filmid song track trackid book bookid asin isbn stockcode stock video videoid content "
        "contentid ad adid news newsid anime game gameid artist artistid problem course lesson "
        "exercise recipe hotel listing material ean upc gtin offer post page doc document asset goods "
        "merchandise business venue poi show episode app question artikel artikelnr artikelnummer "
        "produkt produktid ware produit articulo producto artigo produto articolo prodotto "
        "artikelcode vara vare towar"
    ),
    "time": _set(
        "time timestamp ts date datetime at when created occurred unixtime unix epoch moment day "
        "eventtime invoicedate orderdate purchasedate reviewtime unixreviewtime t utc gmt datum zeit "
        "zeitpunkt zeitstempel uhrzeit fecha hora momento horodatage heure data orario tijd tijdstip "
        "tidspunkt czas"
    ),
    "type": _set(
        "event events action type behavior behaviour activity interaction verb kind eventtype "
        "eventname ereignis aktion typ evenement evento accion azione actie"
    ),
    "session": _set(
        "session sessionid basket basketid invoice invoiceno order orderid visit visitid cart cartid "
        "transaction transactionid receipt ticket trip bestellung bestellnr rechnung rechnungsnr "
        "warenkorb sitzung beleg bon commande panier facture pedido factura cesta ordine scontrino "
        "bestelling"
    ),
    "label": _set(
        "label click clicked isclick target converted conversion purchased bought correct liked like "
        "y response engaged subscribed geklickt clic clique richtig"
    ),
    "quantity": _set(
        "quantity qty count units amount menge anzahl stueck stuck quantite nombre cantidad quantita "
        "quantidade aantal antal ilosc"
    ),
}  # fmt: skip
ID_WORDS: Final = _set("id ids nr no num number code key uuid guid hash sk pk nummer numero cod")
# Words of columns that describe a user or item and do not identify it.
ABOUT: Final = _set(
        "name description desc title category categories country city region gender age group type "
        "price url email brand class segment status color colour size rating score text language "
        "beschreibung bezeichnung land stadt preis kategorie nombre descripcion pays libelle"
    )  # fmt: skip
# Words of columns by which people know an item.
NAMING: Final = _set(
    "name title description desc titel titre beschreibung bezeichnung libelle nombre descripcion titulo nome "
    "denominazione descrizione naam omschrijving navn benaevnelse namn benamning nazwa"
)


def words_of(name: str) -> list[str]:
    """Cut a name into its words in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word for word in re.split(r"[^0-9a-zA-ZÀ-ɏ]+", spaced.casefold()) if word]


def fit(name: str, role: str) -> float:
    """Return how well a name fits a role, from 0 to 1.3."""
    words, known = words_of(name), WORDS[role]
    matches = sum(word in known or _stem(word) in known for word in words)
    score = min(0.9 + 0.1 * matches, 1.1) if matches else 0.0
    joined = "".join(words)
    if joined in known:
        score = 1.15
    elif not score and any(len(word) > 3 and word in joined for word in known):
        score = 0.5
    if not score:
        return 0.0
    if role in ("user", "item", "session"):
        score += 0.2 if ID_WORDS & set(words) or _stem(joined) in known else 0.0
        score -= 0.6 if ABOUT & set(words) else 0.0
    return max(score, 0.0)


def _stem(word: str) -> str:
    """Return a word without the mark of an id that is written in one word with it, such as `memberid`."""
    for ending in ("nummer", "number", "code", "ids", "id", "nr", "no", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending)
    return word


def known_word(name: str) -> bool:
    """Whether any word of a name is one by which people name columns."""
    return any(fit(name, role) >= 1.0 for role in WORDS) or bool(
        (ID_WORDS | ABOUT) & set(words_of(name)) and len(words_of(name)) < 4
    )
