// See packed.hpp: a table from all that packing depends on to what is held by some Plan.
#include "packed.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "parallel.hpp"

namespace relprop {
namespace {

// ---- fingerprints ------------------------------------------------------------------------------

uint64_t mixed(uint64_t h) {
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccd;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53;
    return h ^ (h >> 33);
}

// MurmurHash3 for 64-bit machines (Austin Appleby, in the public domain); the last block is filled
// up with zeros.
Fingerprint murmur(const void *data, size_t bytes) {
    constexpr uint64_t c1 = 0x87c37b91114253d5, c2 = 0x4cf5ad432745937f;
    uint64_t h1 = 0, h2 = 0;
    const auto block = [&](const char *at, size_t count) {
        uint64_t k[2] = {};
        std::memcpy(k, at, count);
        h1 ^= std::rotl(k[0] * c1, 31) * c2;
        h1 = (std::rotl(h1, 27) + h2) * 5 + 0x52dce729;
        h2 ^= std::rotl(k[1] * c2, 33) * c1;
        h2 = (std::rotl(h2, 31) + h1) * 5 + 0x38495ab5;
    };
    const char *at = static_cast<const char *>(data);
    size_t left = bytes;
    for (; left >= 16; left -= 16, at += 16)
        block(at, 16);
    if (left > 0)
        block(at, left);
    h1 ^= bytes;
    h2 ^= bytes;
    h1 += h2;
    h2 += h1;
    h1 = mixed(h1);
    h2 = mixed(h2);
    return {h1 + h2, h1 + 2 * h2};
}

// ---- what is held ------------------------------------------------------------------------------

using Key = std::vector<uint64_t>;

Key key_of(const Kernels &kernels, const Packing &p, int winograd, const Fingerprint &of) {
    const auto number = [](int64_t value) { return static_cast<uint64_t>(value); };
    Key key = {of[0],
               of[1],
               reinterpret_cast<uintptr_t>(&kernels),
               number(winograd),
               number(p.groups),
               number(p.tap_count),
               number(p.run),
               number(p.out),
               number(p.read),
               number(p.group_step),
               number(p.read_step),
               number(p.written_step),
               number(static_cast<int>(p.version)),
               p.version == Version::gamma ? std::bit_cast<uint32_t>(p.gamma) : 0u};
    const int taps = p.run > 0 ? p.tap_count * (p.run / p.read) : p.tap_count;
    std::transform(p.tap_at, p.tap_at + taps, std::back_inserter(key), number);
    return key;
}

// Never destroyed: Plans may outlive whatever ends with the process.
struct Held {
    std::mutex mutex;
    std::map<Key, std::weak_ptr<const Memory>> by_key;
};
Held &held() {
    static Held &all = *new Held;
    return all;
}

} // namespace

// Pieces are hashed apart, so that threads can share them, and then their hashes.
Fingerprint fingerprint(std::span<const float> weights) {
    constexpr size_t piece = size_t{1} << 18; // floats
    std::vector<Fingerprint> of((weights.size() + piece - 1) / piece);
    parallel_for(static_cast<int64_t>(of.size()), [&](int64_t task) {
        const size_t i = static_cast<size_t>(task);
        const auto part = weights.subspan(i * piece, std::min(piece, weights.size() - i * piece));
        of[i] = murmur(part.data(), part.size_bytes());
    });
    return of.size() == 1 ? of.front() : murmur(of.data(), of.size() * sizeof(Fingerprint));
}

PackedWeights::PackedWeights(const Kernels &kernels, const Packing &packing, int winograd,
                             const float *weights, const Fingerprint &of) {
    const Key key = key_of(kernels, packing, winograd, of);
    const auto find = [&] {
        const auto found = held().by_key.find(key);
        return found == held().by_key.end() ? nullptr : found->second.lock();
    };
    {
        std::lock_guard lock(held().mutex);
        if ((held_ = find()))
            return;
    }
    const auto pack_into = [&](float *to) {
        return winograd ? kernels.winograd_pack(packing, winograd, weights, to)
                        : kernels.pack(packing, weights, to);
    };
    const int64_t floats = pack_into(nullptr);
    auto fresh = std::make_shared<Memory>(kernels, floats);
    if (kernels.device) {
        const Pages on_host(floats);
        pack_into(on_host.data());
        fresh->fill(on_host.data(), floats * static_cast<int64_t>(sizeof(float)));
    } else {
        pack_into(fresh->data());
    }
    std::lock_guard lock(held().mutex);
    if ((held_ = find())) // another thread was faster
        return;
    std::erase_if(held().by_key, [](const auto &entry) { return entry.second.expired(); });
    held().by_key[key] = held_ = std::move(fresh);
}

int64_t packed_bytes() {
    std::lock_guard lock(held().mutex);
    int64_t bytes = 0;
    for (const auto &[_, memory] : held().by_key)
        if (const auto alive = memory.lock())
            bytes += alive->floats() * static_cast<int64_t>(sizeof(float));
    return bytes;
}

} // namespace relprop
