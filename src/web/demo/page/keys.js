// The cryptography of the demo, all of it WebCrypto: who a device is (Ed25519, or ECDSA P-256 where the browser has no
// Ed25519), which key two devices share (X25519 or ECDH P-256, then HKDF), and sealed texts (AES-GCM).
//
// Public keys travel as text, "X25519:…", so that each says what it is.

const subtle = globalThis.crypto?.subtle;

const SIGNING = {
  Ed25519: { key: { name: "Ed25519" }, use: { name: "Ed25519" } },
  "P-256": { key: { name: "ECDSA", namedCurve: "P-256" }, use: { name: "ECDSA", hash: "SHA-256" } },
};
const AGREEMENT = {
  X25519: { key: { name: "X25519" } },
  "P-256": { key: { name: "ECDH", namedCurve: "P-256" } },
};

/** Whether this page may use WebCrypto: browsers give it to https and to this machine only. */
export const available = Boolean(subtle);

const encode = (value) => new TextEncoder().encode(value);
/** Several values as bytes that no other values give. */
const bytesOf = (...parts) => encode(JSON.stringify(parts));
const toText = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
const toBytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** A key pair of the first kind that the browser has, in a form that can be stored as JSON. */
async function newPair(kinds, uses) {
  for (const [kind, { key }] of Object.entries(kinds)) {
    try {
      const pair = await subtle.generateKey(key, true, uses);
      const open = toText(await subtle.exportKey("raw", pair.publicKey));
      return { public: `${kind}:${open}`, private: await subtle.exportKey("jwk", pair.privateKey) };
    } catch (failed) {
      if (failed.name !== "NotSupportedError") throw failed;
    }
  }
  throw new Error("This browser has no elliptic curves.");
}

function importPublic(kinds, text, uses) {
  const [kind, open] = text.split(":");
  if (!Object.hasOwn(kinds, kind)) throw new Error("The other device has a key of an unknown kind.");
  return subtle.importKey("raw", toBytes(open), kinds[kind].key, true, uses);
}

function importPrivate(kinds, pair, uses) {
  return subtle.importKey("jwk", pair.private, kinds[pair.public.split(":")[0]].key, false, uses);
}

export const newSigningPair = () => newPair(SIGNING, ["sign", "verify"]);
export const newAgreementPair = () => newPair(AGREEMENT, ["deriveKey"]);

export async function sign(pair, ...parts) {
  const { use } = SIGNING[pair.public.split(":")[0]];
  const key = await importPrivate(SIGNING, pair, ["sign"]);
  return toText(await subtle.sign(use, key, bytesOf(...parts)));
}

export async function verify(publicKey, signature, ...parts) {
  const key = await importPublic(SIGNING, publicKey, ["verify"]);
  const { use } = SIGNING[publicKey.split(":")[0]];
  return subtle.verify(use, key, toBytes(signature), bytesOf(...parts));
}

/** The key for texts in one direction. Both public keys and both names go into it, so no other pair has the same key. */
async function sharedKey(ownPair, peerPublic, way) {
  const [own, peer] = await Promise.all([
    importPrivate(AGREEMENT, ownPair, ["deriveKey"]),
    importPublic(AGREEMENT, peerPublic, []),
  ]);
  const secret = await subtle.deriveKey({ name: own.algorithm.name, public: peer }, own, "HKDF", false, ["deriveKey"]);
  const publics = [ownPair.public, peerPublic].sort();
  const hkdf = { name: "HKDF", hash: "SHA-256", salt: bytesOf(...publics), info: bytesOf("sealpost demo", ...way) };
  return subtle.deriveKey(hkdf, secret, { name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
}

/** Encrypts a text; `way` says from whom to whom, and is authenticated with it. */
export async function seal(ownPair, peerPublic, way, text) {
  const key = await sharedKey(ownPair, peerPublic, way);
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const sealed = await subtle.encrypt({ name: "AES-GCM", iv, additionalData: bytesOf(...way) }, key, encode(text));
  return toText([...iv, ...new Uint8Array(sealed)]);
}

export async function open(ownPair, peerPublic, way, sealed) {
  const key = await sharedKey(ownPair, peerPublic, way);
  const bytes = toBytes(sealed);
  const how = { name: "AES-GCM", iv: bytes.subarray(0, 12), additionalData: bytesOf(...way) };
  return new TextDecoder().decode(await subtle.decrypt(how, key, bytes.subarray(12)));
}

/** Six groups of digits that both people see alike if nobody stands between them. */
export async function safetyNumber(one, other) {
  const hash = new Uint8Array(await subtle.digest("SHA-256", bytesOf("sealpost demo", ...[one, other].sort())));
  const groups = Array.from({ length: 6 }, (_, at) => {
    const number = hash.subarray(at * 5, at * 5 + 5).reduce((sum, byte) => sum * 256 + byte, 0);
    return String(number % 100000).padStart(5, "0");
  });
  return groups.join(" ");
}
