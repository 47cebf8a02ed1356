//! The four wire types of protocol buffers, for the messages that TensorBoard's events and ONNX models consist of.
//! Which field has which number and type is the business of those who write them.

/// A message under construction.
#[derive(Default)]
pub struct Message(Vec<u8>);

const VARINT: u64 = 0;
const BITS_64: u64 = 1;
const BYTES: u64 = 2;
const BITS_32: u64 = 5;

impl Message {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn varint(&mut self, field: u64, value: u64) {
        self.key(field, VARINT);
        self.raw_varint(value);
    }

    pub fn float(&mut self, field: u64, value: f32) {
        self.key(field, BITS_32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn double(&mut self, field: u64, value: f64) {
        self.key(field, BITS_64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A packed repeated field.
    pub fn doubles(&mut self, field: u64, values: &[f64]) {
        self.key(field, BYTES);
        self.raw_varint(8 * values.len() as u64);
        values.iter().for_each(|value| self.0.extend_from_slice(&value.to_le_bytes()));
    }

    pub fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, BYTES);
        self.raw_varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A message within this one: what `fill` writes. It grows in its place, so that a large one is not there twice.
    pub fn message(&mut self, field: u64, fill: impl FnOnce(&mut Message)) {
        self.key(field, BYTES);
        let start = self.0.len();
        fill(self);
        let length = self.0.len() - start;
        self.raw_varint(length as u64);
        // The length goes before what it counts.
        self.0[start..].rotate_left(length);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.raw_varint(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the protocol-buffers encoding guide.
    #[test]
    fn wire_format_of_the_guide() {
        let mut message = Message::default();
        message.varint(1, 150);
        message.text(2, "testing");
        message.message(3, |inner| inner.varint(1, 150));
        assert_eq!(message.as_bytes(), b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01");
    }

    #[test]
    fn a_message_lies_in_another_behind_its_length_of_several_bytes() {
        let mut message = Message::default();
        message.message(1, |outer| {
            outer.message(2, |inner| inner.bytes(3, &[7; 200]));
            outer.varint(4, 5);
        });
        // 200 is C8 01; its message has 3 bytes more (CB 01), and the outer one 3 and 2 more (D0 01).
        let before: &[u8] = b"\x0a\xd0\x01\x12\xcb\x01\x1a\xc8\x01";
        assert_eq!(message.as_bytes(), [before, &[7; 200], b"\x20\x05"].concat());
    }

    #[test]
    fn numbers_are_little_endian() {
        let mut message = Message::default();
        message.float(2, 1.0);
        message.double(1, -2.0);
        message.doubles(6, &[1.0]);
        assert_eq!(
            message.as_bytes(),
            b"\x15\x00\x00\x80\x3f\x09\x00\x00\x00\x00\x00\x00\x00\xc0\x32\x08\x00\x00\x00\x00\x00\x00\xf0\x3f"
        );
    }
}
