//! AES-SIV (RFC 5297, AES-128) for one thing: 20 bytes without associated data.
//!
//! The general construction of the `aes-siv` crate costs several times as much, on the way of every click. Here what depends
//! on the key alone is worked out once: the subkeys of CMAC (RFC 4493) and its value of the zero block. A property test
//! holds every byte to that crate's.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use subtle::ConstantTimeEq;

/// Bytes of a message.
pub(crate) const MESSAGE_BYTES: usize = 20;
/// Bytes of its tag, the synthetic initialization vector.
pub(crate) const TAG_BYTES: usize = 16;

/// A key, prepared.
pub(crate) struct Siv {
    mac: Aes128,
    counter: Aes128,
    /// CMAC's second subkey, for a last block that is padded.
    padded: u128,
    /// CMAC of the zero block: where S2V starts from.
    zero: u128,
}

impl Siv {
    /// The first half of the key authenticates, the second encrypts (RFC 5297 §2.2).
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let (mac, counter) = key.split_at(16);
        let cipher = |half: &[u8]| {
            Aes128::new(&Array::try_from(half).expect("half of 32 bytes is a key of AES-128"))
        };
        let (mac, counter) = (cipher(mac), cipher(counter));
        let whole = double(encrypt(&mac, 0));
        Self {
            padded: double(whole),
            zero: encrypt(&mac, whole),
            mac,
            counter,
        }
    }

    /// Encrypts in place; the tag.
    pub(crate) fn encrypt(&self, message: &mut [u8; MESSAGE_BYTES]) -> [u8; TAG_BYTES] {
        let tag = self.tag(message);
        self.apply_keystream(tag, message);
        tag.to_be_bytes()
    }

    /// Decrypts in place; whether the tag is the message's. What was decrypted under another tag is not to be used.
    pub(crate) fn decrypt(&self, message: &mut [u8; MESSAGE_BYTES], tag: [u8; TAG_BYTES]) -> bool {
        let tag = u128::from_be_bytes(tag);
        self.apply_keystream(tag, message);
        // How far a guess agrees does not show in the time.
        self.tag(message).ct_eq(&tag).into()
    }

    /// S2V of one string that is longer than a block (RFC 5297 §2.4): its end is mixed with what S2V starts from, then CMAC.
    fn tag(&self, message: &[u8; MESSAGE_BYTES]) -> u128 {
        const HEAD: usize = MESSAGE_BYTES - TAG_BYTES;
        let mut mixed = *message;
        let end: [u8; TAG_BYTES] = message[HEAD..].try_into().expect("a block is left");
        let end = u128::from_be_bytes(end) ^ self.zero;
        mixed[HEAD..].copy_from_slice(&end.to_be_bytes());
        let first: [u8; 16] = mixed[..16].try_into().expect("longer than a block");
        let mut last = [0; 16];
        last[..HEAD].copy_from_slice(&mixed[16..]);
        last[HEAD] = 0x80;
        let chained = encrypt(&self.mac, u128::from_be_bytes(first));
        encrypt(&self.mac, chained ^ u128::from_be_bytes(last) ^ self.padded)
    }

    /// AES-CTR from the tag on, two of its bits cleared (RFC 5297 §2.5).
    fn apply_keystream(&self, tag: u128, message: &mut [u8; MESSAGE_BYTES]) {
        let first = tag & !(1 << 63 | 1 << 31);
        let mut blocks = [first, first.wrapping_add(1)].map(|block| block.to_be_bytes().into());
        self.counter.encrypt_blocks(&mut blocks);
        let stream = blocks[0].iter().chain(&blocks[1]);
        for (byte, key) in message.iter_mut().zip(stream) {
            *byte ^= key;
        }
    }
}

fn encrypt(cipher: &Aes128, block: u128) -> u128 {
    let mut block = block.to_be_bytes().into();
    cipher.encrypt_block(&mut block);
    u128::from_be_bytes(block.into())
}

/// Doubling in GF(2^128) (RFC 5297 §2.3).
fn double(block: u128) -> u128 {
    (block << 1) ^ ((block >> 127) * 0x87)
}

#[cfg(test)]
mod tests {
    use aes_siv::siv::Aes128Siv;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_aes_siv(
            key: [u8; 32],
            message: [u8; MESSAGE_BYTES],
            (at, bit) in (0..TAG_BYTES + MESSAGE_BYTES, 0..8),
        ) {
            let siv = Siv::new(&key);
            let mut sealed = message;
            let tag = siv.encrypt(&mut sealed);

            let mut expected = message;
            let expected_tag = Aes128Siv::new(&key.into())
                .encrypt_inout_detached::<[&[u8]; 0], &[u8]>([], (&mut expected[..]).into())
                .expect("short enough");
            prop_assert_eq!(tag, <[u8; TAG_BYTES]>::from(expected_tag));
            prop_assert_eq!(sealed, expected);

            let mut opened = sealed;
            prop_assert!(siv.decrypt(&mut opened, tag));
            prop_assert_eq!(opened, message);

            let (mut bent, mut bent_tag) = (sealed, tag);
            match at.checked_sub(TAG_BYTES) {
                None => bent_tag[at] ^= 1u8 << bit,
                Some(at) => bent[at] ^= 1u8 << bit,
            }
            prop_assert!(!siv.decrypt(&mut bent, bent_tag));
        }
    }
}
