#include <doctest/doctest.h>

#include <string>

#include "sha256.hpp"

using namespace quadbench;

static std::string digest(const std::string& text) { return sha256_hex(std::as_bytes(std::span(text))); }

// FIPS 180-4 examples (csrc.nist.gov, "SHA256.pdf"), and lengths around a block's end checked with sha256sum.
TEST_CASE("known messages have their digests") {
  CHECK(digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(digest(std::string(55, 'a')) == "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  CHECK(digest(std::string(64, 'a')) == "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
  CHECK(digest(std::string(1'000'000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("a message in pieces has the digest of the whole") {
  const std::string text(1000, 'x');
  for (const std::size_t piece : {1, 7, 63, 64, 65, 999}) {
    Sha256 hash;
    for (std::size_t at = 0; at < text.size(); at += piece)
      hash.update(std::as_bytes(std::span(text).subspan(at, std::min(piece, text.size() - at))));
    CHECK(hash.hex_digest() == digest(text));
  }
}
