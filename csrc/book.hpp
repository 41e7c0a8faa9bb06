// What a search finds, written by several workers and read in the order in which one would have found it.
#pragma once

#include <array>
#include <deque>
#include <span>
#include <vector>

#include "block.hpp"
#include "sync.hpp"
#include "team.hpp"

namespace tilesmith {

inline constexpr int kMostKernels = 8; // of a program

// One kernel of a program.
struct Choice {
    const Kernels *kernels = nullptr;
    std::uint32_t signature = 0;

    const Signature &chosen() const { return kernels->signatures[signature]; }
    bool operator==(const Choice &) const = default;
};

using Plan = std::span<const Choice>;

// Programs, those of fewer kernels first.
class Plans {
  public:
    void add(Plan plan);
    // What comes after all that is here. Nothing is copied.
    void append(Plans more);
    std::uint64_t size() const;

    template <typename Visit> void each(const Visit &visit) const {
        for (std::size_t length = 1; length <= kMostKernels; ++length)
            for (const std::vector<Choice> &choices : pieces_[length])
                for (std::size_t at = 0; at < choices.size(); at += length) visit(Plan{choices.data() + at, length});
    }

  private:
    friend class Segment;
    std::array<std::vector<std::vector<Choice>>, kMostKernels + 1> pieces_; // by the number of kernels
};

// The findings of one piece of work. Only the worker that has it writes to it.
class Segment {
  public:
    explicit Segment(int level) : level_(level) {}

    int level() const { return level_; }

  private:
    friend class Book;

    void add(Plan plan) {
        plans_.add(plan);
        lengths_.push_back(static_cast<std::uint8_t>(plan.size()));
    }
    // In the order in which they were found, until one call says false.
    template <typename Visit> void each(const Visit &visit) const {
        std::array<std::size_t, kMostKernels + 1> next{};
        for (const std::uint8_t length : lengths_) {
            if (!visit(Plan{plans_.pieces_[length].front().data() + next[length], length})) return;
            next[length] += length;
        }
    }

    Plans plans_;
    std::vector<std::uint8_t> lengths_; // of programs, as they were found
    bool head_ = false;                 // of a row
    std::uint64_t elsewhere_ = 0;       // the chain that another process makes of it, or 0
    int level_;                         // how many kernels the work began with
    Atomic<bool> closed_{false};
    Atomic<std::uint64_t> graphs_{0};
    Atomic<Segment *> next_{nullptr};
};

struct Chain;

// Segments in a row. Work that is given away gets one right after the giver's: what the giver still has to do comes
// before it, as it gives the last that it has, and so no worker waits for another's place.
class Book {
  public:
    // `most` graphs end the search, once no other could come before them; 0 is no limit. Depth-first a program comes
    // where the search meets it, breadth-first after all of fewer kernels.
    Book(Control &control, std::uint64_t most, Order order);

    Segment &first() { return segments_.front(); }
    Segment &after(Segment &segment, int level);
    // The first of a row of its own.
    Segment &apart(int level);
    void add(Segment &segment, Plan plan);
    void close(Segment &segment);

    // After the search; only once. What comes after the last that was asked for is left out.
    Plans take();
    // Graphs of what was taken, each implementation counted.
    std::uint64_t graphs() const { return graphs_; }
    // Whether as many were taken as were asked for.
    bool full() const { return most_ && graphs_ >= most_; }

    static std::uint64_t ways(Plan plan);

    // For rows that other processes have parts of.
    // Ends a row before each segment that there is: each is a row of its own from now on.
    std::vector<Segment *> cut();
    // A segment's work is done in another process, as the chain of that id.
    void send(Segment &segment, std::uint64_t id);
    // Whether a row's segments are all closed.
    static bool done(const Segment &first);
    // A row as a chain. Only of closed segments, or after the search.
    static Chain chain(const Segment &first, std::uint64_t id);

  private:
    void settle();

    Control &control_;
    std::uint64_t most_, graphs_ = 0;
    Order order_;
    Mutex mutex_;
    std::deque<Segment> segments_;
    // Depth-first: the first that is open, and the graphs before it. Breadth-first: how many are open on each level,
    // and the graphs by their kernels.
    Atomic<Segment *> front_;
    Atomic<std::uint64_t> before_{0};
    std::array<Atomic<std::uint64_t>, kMostKernels + 1> open_{}, by_kernels_{};
};

} // namespace tilesmith
