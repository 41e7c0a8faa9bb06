#include "book.hpp"

#include <algorithm>
#include <iterator>

#include "ledger.hpp"

namespace tilesmith {

void Plans::add(Plan plan) {
    auto &pieces = pieces_[plan.size()];
    if (pieces.empty()) pieces.emplace_back();
    pieces.back().insert(pieces.back().end(), plan.begin(), plan.end());
}

void Plans::append(Plans more) {
    for (std::size_t length = 1; length <= kMostKernels; ++length)
        std::ranges::move(more.pieces_[length], std::back_inserter(pieces_[length]));
}

std::uint64_t Plans::size() const {
    std::uint64_t size = 0;
    for (std::size_t length = 1; length <= kMostKernels; ++length)
        for (const std::vector<Choice> &choices : pieces_[length]) size += choices.size() / length;
    return size;
}

std::uint64_t Book::ways(Plan plan) {
    std::uint64_t ways = 1;
    for (const Choice &choice : plan) ways *= choice.chosen().implementations.size();
    return ways;
}

Book::Book(Control &control, std::uint64_t most, Order order)
    : control_(control), most_(most), order_(order), front_(&segments_.emplace_back(0)) {
    open_[0] = 1;
}

Segment &Book::after(Segment &segment, int level) {
    const std::lock_guard lock(mutex_);
    Segment &made = segments_.emplace_back(level);
    made.next_.store(segment.next_.load());
    segment.next_.store(&made);
    ++open_[static_cast<std::size_t>(level)];
    return made;
}

Segment &Book::apart(int level) {
    const std::lock_guard lock(mutex_);
    Segment &made = segments_.emplace_back(level);
    made.head_ = true;
    ++open_[static_cast<std::size_t>(level)];
    return made;
}

std::vector<Segment *> Book::cut() {
    const std::lock_guard lock(mutex_);
    std::vector<Segment *> all;
    for (Segment *segment = &first(); segment; segment = segment->next_) {
        segment->head_ = true;
        all.push_back(segment);
    }
    return all;
}

void Book::send(Segment &segment, std::uint64_t id) {
    segment.elsewhere_ = id;
    close(segment);
}

bool Book::done(const Segment &first) {
    for (const Segment *segment = &first; segment; segment = segment->next_) {
        if (segment->head_ && segment != &first) break;
        if (!segment->closed_) return false;
    }
    return true;
}

Chain Book::chain(const Segment &first, std::uint64_t id) {
    Chain chain;
    chain.id = id;
    for (const Segment *segment = &first; segment; segment = segment->next_) {
        if (segment->head_ && segment != &first) break;
        if (segment->elsewhere_) {
            chain.lengths.push_back(0);
            chain.places.push_back(segment->elsewhere_);
        }
        chain.lengths.insert(chain.lengths.end(), segment->lengths_.begin(), segment->lengths_.end());
        segment->each([&](Plan plan) {
            chain.choices.insert(chain.choices.end(), plan.begin(), plan.end());
            return true;
        });
    }
    return chain;
}

void Book::add(Segment &segment, Plan plan) {
    segment.add(plan);
    const std::uint64_t more = ways(plan);
    // Only its worker writes it.
    const std::uint64_t graphs = segment.graphs_.load(std::memory_order_relaxed) + more;
    if (!most_) return segment.graphs_.store(graphs, std::memory_order_relaxed);
    segment.graphs_ = graphs;
    // Whoever comes second, this or the next front, sees what the other wrote.
    if (order_ == Order::bfs) by_kernels_[plan.size()] += more;
    else if (front_ == &segment && before_ + graphs >= most_) control_.ask(Stop::graphs);
}

void Book::close(Segment &segment) {
    const std::lock_guard lock(mutex_);
    segment.closed_ = true;
    --open_[static_cast<std::size_t>(segment.level())];
    // What was left unfinished is no end of anything.
    if (most_ && !control_.stopped()) settle();
}

void Book::settle() {
    if (order_ == Order::bfs) {
        std::uint64_t graphs = 0;
        for (std::size_t level = 0; level < kMostKernels && !open_[level]; ++level) {
            graphs += by_kernels_[level + 1];
            if (graphs >= most_) return control_.ask(Stop::graphs);
        }
        return;
    }
    Segment *front = front_;
    while (front->closed_ && front->next_) {
        before_ += front->graphs_;
        front = front->next_;
        front_ = front;
    }
    if (before_ + front->graphs_ >= most_) control_.ask(Stop::graphs);
}

Plans Book::take() {
    Plans all;
    for (Segment *segment = &first(); segment && !(order_ == Order::dfs && full()); segment = segment->next_) {
        if (most_ && order_ == Order::dfs) {
            segment->each([&](Plan plan) {
                all.add(plan);
                graphs_ += ways(plan);
                return !full();
            });
            continue;
        }
        if (!most_) graphs_ += segment->graphs_;
        all.append(std::move(segment->plans_));
        segment->lengths_ = {};
    }
    if (!most_ || order_ == Order::dfs) return all;
    Plans fewest;
    all.each([&](Plan plan) {
        if (full()) return;
        graphs_ += ways(plan);
        fewest.add(plan);
    });
    return fewest;
}

} // namespace tilesmith
