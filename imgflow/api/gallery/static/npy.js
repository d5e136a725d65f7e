// Reads the float32 arrays of `GET /image/{id}?format=npy`.

const MAGIC = "\x93NUMPY";

/** Rows and columns of an array, and its values row by row. */
export function parseNpy(buffer) {
  const view = new DataView(buffer);
  const text = (from, to) => String.fromCharCode(...new Uint8Array(buffer, from, to - from));
  if (text(0, 6) !== MAGIC) throw new Error("This is no array.");
  const isLong = view.getUint8(6) > 1;
  const start = isLong ? 12 : 10;
  const end = start + (isLong ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = text(start, end);
  const shape = /'shape': \((\d+), (\d+)\)/.exec(header);
  if (shape === null || !header.includes("'<f4'") || !header.includes("'fortran_order': False")) {
    throw new Error("This is no float32 array of rows.");
  }
  const [rows, columns] = [Number(shape[1]), Number(shape[2])];
  // A copy, since the values need not begin where a Float32Array may.
  const values = new Float32Array(buffer.slice(end, end + 4 * rows * columns));
  return { rows, columns, values };
}

/** The shortest decimal number that is this float32, as numpy prints it. */
export function shortest(value) {
  for (let digits = 1; digits < 10; digits += 1) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === value) return String(Number(text));
  }
  return String(value);
}
