/** What an attacker wrote is shown, never carried out. */

/** Control, format (bidi marks, zero width), surrogate, private use, unassigned, separators. */
const STEERING = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/u;
const NAMED: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\u001b": "\\e" };

/** A run of text; `escape` marks one that stands for a character that must not take effect. */
export interface Piece {
  text: string;
  escape: boolean;
}

function escaped(char: string): string {
  const code = char.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  if (NAMED[char]) return NAMED[char];
  if (code < 0x100) return `\\x${hex.padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\u{${hex}}`;
}

/** The text cut into what may be shown as it is, and escapes of what may not. */
export function pieces(text: string): Piece[] {
  if (!STEERING.test(text)) return [{ text, escape: false }];
  const found: Piece[] = [];
  let plain = "";
  for (const char of text) {
    if (!STEERING.test(char)) {
      plain += char;
      continue;
    }
    if (plain) found.push({ text: plain, escape: false });
    found.push({ text: escaped(char), escape: true });
    plain = "";
  }
  if (plain) found.push({ text: plain, escape: false });
  return found;
}

/** The same as one string, for titles and labels, cut at `limit` characters. */
export function shown(text: string, limit = 200): string {
  const whole = pieces(text.slice(0, limit + 1)).map((piece) => piece.text).join("");
  return text.length > limit ? `${whole.slice(0, limit)}…` : whole;
}
