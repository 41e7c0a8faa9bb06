// What several processes found, put together in the order in which one would have found it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "book.hpp"
#include "memo.hpp"
#include "pool.hpp"
#include "wire.hpp"

namespace tilesmith {

// Findings of one piece of work, and the places in them of work that went to another process.
struct Chain {
    std::uint64_t id = 0;
    std::vector<std::uint8_t> lengths; // of programs; 0 stands for a place
    std::vector<Choice> choices;       // of all programs
    std::vector<std::uint64_t> places; // ids of chains
};

// Block searches, by themselves or with their keys, and chains as bytes. A reader knows the block searches that chains name by their keys.
void write(Writer &writer, const Kernels &kernels);
void write(Writer &writer, const std::vector<const Memo::Entry *> &entries);
void write(Writer &writer, const Chain &chain);
void write(Writer &writer, const Item &item, Memo &memo);
Kernels read_kernels(Reader &reader);
// Of a memo that may know some.
void read_entries(Reader &reader, Memo &memo);
Chain read_chain(Reader &reader, Memo &memo);
Item read_item(Reader &reader, Memo &memo);

class Ledger {
  public:
    void add(Chain chain) { chains_[chain.id] = std::move(chain); }

    // Whether the first so many graphs of the search depth-first are there.
    bool has(std::uint64_t graphs) const;
    // All programs in order, or the first that make so many graphs, counted in `graphs`; 0 is no limit. What no chain of
    // the first process names comes last.
    Plans plans(std::uint64_t most, Order order, std::uint64_t &graphs) const;

  private:
    // Calls with each program of a chain, and of those that it names; false once a call or a missing chain says so.
    template <typename Visit> bool each(std::uint64_t id, bool whole, const Visit &visit) const;

    std::map<std::uint64_t, Chain> chains_;
};

// Ids below are those of the work that was split first, in order; the others are of what was given away.
inline constexpr std::uint64_t kFirstGiven = std::uint64_t{1} << 32;

} // namespace tilesmith
