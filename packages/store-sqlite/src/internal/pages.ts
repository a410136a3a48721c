/**
 * How a page of completed offsets is kept: up to 127 runs, two 16-bit numbers each, or a bitmap of 512 bytes, as
 * Roaring does (Lemire et al., 2016). Pure. Little-endian on every machine, so that files can be moved.
 */

/** How many offsets a page has. */
export const pageSize = 4096
const bitmapBytes = pageSize / 8
const runBytes = 4

/** The page that holds an offset. */
export const pageOf = (offset: number): number => Math.floor(offset / pageSize)

/** Ranges `[from, to, ...]` that lie within the page which begins at `base`. */
export const encodePage = (flat: ReadonlyArray<number>, base: number): Uint8Array => {
  if ((flat.length / 2) * runBytes < bitmapBytes) {
    const bytes = new Uint8Array(flat.length * 2)
    const view = new DataView(bytes.buffer)
    for (let i = 0; i < flat.length; i++) view.setUint16(i * 2, flat[i] - base, true)
    return bytes
  }
  const bytes = new Uint8Array(bitmapBytes)
  for (let i = 0; i < flat.length; i += 2) {
    for (let at = flat[i] - base; at < flat[i + 1] - base; ) {
      const whole = (at & 7) === 0 && at + 8 <= flat[i + 1] - base
      bytes[at >>> 3] |= whole ? 0xff : 1 << (at & 7)
      at += whole ? 8 : 1
    }
  }
  return bytes
}

/** The ranges again; `undefined` where the bytes are none of a page. */
export const decodePage = (bytes: Uint8Array, base: number): Array<number> | undefined => {
  if (bytes.length === bitmapBytes) return decodeBitmap(bytes, base)
  if (bytes.length % runBytes !== 0 || bytes.length > bitmapBytes) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const flat: Array<number> = []
  for (let i = 0; i < bytes.length; i += 2) {
    const at = view.getUint16(i, true)
    if (at > pageSize || (i > 0 && base + at <= flat[flat.length - 1])) return undefined
    flat.push(base + at)
  }
  return flat
}

const decodeBitmap = (bytes: Uint8Array, base: number): Array<number> => {
  const flat: Array<number> = []
  let inside = false
  for (let index = 0; index < bitmapBytes; index++) {
    const byte = bytes[index]
    if (byte === (inside ? 0xff : 0)) continue
    for (let bit = 0; bit < 8; bit++) {
      const present: boolean = (byte & (1 << bit)) !== 0
      if (present === inside) continue
      flat.push(base + index * 8 + bit)
      inside = present
    }
  }
  if (inside) flat.push(base + pageSize)
  return flat
}
