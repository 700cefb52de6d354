// Copies to shared memory beside the threads' work, and what counts them: see emulator.hpp.
#include "block.hpp"
#include "dice.hpp"

namespace relprop::emulator {
namespace {

Copies &copies_of_thread(Block &b) { return b.copies[b.running]; }

// How many copies to a piece of shared memory are hidden from the tensor cores.
uint16_t &hidden_at(const void *at) {
    Block &b = cooperative_block();
    if (!b.shared.holds(at))
        fail("an instruction for dynamic shared memory is given other memory");
    const auto *first = static_cast<const char *>(b.shared.data());
    return b.hidden_from_cores[static_cast<size_t>(static_cast<const char *>(at) - first) / piece];
}

Arrivals &arrivals_at(uint64_t *at) {
    static_assert(sizeof(Arrivals) == sizeof *at);
    if (!cooperative_block().shared.holds(at))
        fail("threads arrive at what is not in dynamic shared memory");
    return *reinterpret_cast<Arrivals *>(at);
}

// All may have arrived: who waits for that goes on.
void count_arrival(uint64_t *at) {
    Arrivals &a = arrivals_at(at);
    if (a.missing > 0 || a.bytes > 0)
        return;
    a.missing = a.all;
    ++a.times;
    Block &b = cooperative_block();
    std::erase_if(b.waiting, [&](const auto &waiting) {
        if (waiting.second == at)
            make_ready(b, waiting.first);
        return waiting.second == at;
    });
}

void arrive_once(uint64_t *at, int bytes) {
    Arrivals &a = arrivals_at(at);
    if (a.missing == 0)
        fail("more threads arrive than are waited for");
    --a.missing;
    a.bytes += bytes;
    count_arrival(at);
}

void finish_bulk_copies(uint64_t *at) {
    std::vector<BulkCopy> &all = cooperative_block().bulk_copies;
    for (const BulkCopy &copy : all) {
        if (copy.arrivals != at)
            continue;
        std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
        for (int byte = 0; byte < copy.bytes; byte += piece)
            --hidden_at(static_cast<char *>(copy.to) + byte);
        arrivals_at(at).bytes -= copy.bytes;
        count_arrival(at);
    }
    std::erase_if(all, [&](const BulkCopy &copy) { return copy.arrivals == at; });
}

// Finishes a thread's first copies, up to so many since it began, and tells those who wait.
void finish_copies(Copies &of, size_t up_to) {
    for (size_t i = of.first; i < up_to; ++i)
        of.begun[i - of.first].finish();
    for (; !of.told.empty() && of.told.front().second <= up_to; of.told.pop_front())
        arrive_once(of.told.front().first, 0);
}

// Finishes the copies that arrivals are counted of.
void finish_what_arrives(uint64_t *at) {
    finish_bulk_copies(at);
    for (Copies &copies : cooperative_block().copies)
        for (size_t i = copies.told.size(); i-- > 0;)
            if (copies.told[i].first == at) {
                finish_copies(copies, copies.told[i].second);
                break;
            }
}

} // namespace

bool finish_what_is_waited_for() {
    Block &b = cooperative_block();
    const auto waiting = b.waiting;
    for (const auto &[thread, at] : waiting) {
        finish_what_arrives(at);
        if (!b.ready.empty())
            return true;
    }
    return false;
}

void begin_copy(void *to, const void *from, size_t bytes) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % bytes != 0)
        fail("a copy to shared memory is not aligned to its size");
    Block &b = cooperative_block();
    if (!b.shared.holds(to))
        fail("a copy to shared memory is given other memory");
    Copies &own = copies_of_thread(b);
    own.begun.push_back({to, from, bytes, false});
    ++own.open;
    if (draw_below(2) == 0)
        own.begun.back().finish();
}

void close_copies() {
    Copies &own = copies_of_thread(cooperative_block());
    own.groups.push_back(own.open);
    own.open = 0;
}

void await_copies(int open) {
    Copies &own = copies_of_thread(cooperative_block());
    for (; own.groups.size() > static_cast<size_t>(open); own.groups.pop_front())
        for (size_t left = own.groups.front(); left > 0; --left) {
            finish_copies(own, own.first + 1);
            own.begun.pop_front();
            ++own.first;
        }
}

void begin_arrivals(uint64_t *at, int arrivals) {
    const auto all = static_cast<uint8_t>(arrivals);
    if (arrivals <= 0 || all != arrivals)
        fail("the emulator counts from 1 to 255 arrivals");
    arrivals_at(at) = {all, all, 0, 0};
}

void arrive(uint64_t *at, int bytes) { arrive_once(at, bytes); }

void begin_bulk_copy(uint64_t *at, void *to, const void *from, int bytes) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) |
         static_cast<uintptr_t>(bytes)) %
            piece !=
        0)
        fail("a copy of the copy engine is not aligned to 16 bytes");
    for (int byte = 0; byte < bytes; byte += piece)
        ++hidden_at(static_cast<char *>(to) + byte);
    cooperative_block().bulk_copies.push_back({at, to, from, bytes});
    if (draw_below(2) == 0)
        finish_bulk_copies(at);
}

void arrive_with_copies(uint64_t *at) {
    Copies &own = copies_of_thread(cooperative_block());
    own.told.emplace_back(at, own.first + own.begun.size());
    if (draw_below(2) == 0)
        finish_copies(own, own.first + own.begun.size());
}

void await_arrivals(uint64_t *at, int time) {
    constexpr size_t patience = 16; // of so many threads one has the copies done, else all wait
    if (draw_below(patience) == 0)
        finish_what_arrives(at);
    while (arrivals_at(at).times <= time) {
        Block &b = cooperative_block();
        b.waiting.emplace_back(b.running, at);
        wait(b, State::at_arrivals);
    }
    if (arrivals_at(at).times > time + 1)
        fail("a thread waits for what was before the last time");
}

void require_shown(const void *at) {
    if (hidden_at(at) > 0)
        fail("tensor cores read what is being copied");
}

} // namespace relprop::emulator
