#include "kernels.hpp"

#include "bundles.hpp"
#include "ends.hpp"
#include "ledger.hpp"

#include <algorithm>
#include <deque>
#include <exception>
#include <stdexcept>
#include <thread>
#include <unordered_map>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace tilesmith {

std::vector<Tensor> program_inputs(const Space &space) {
    std::vector<Tensor> inputs;
    for (std::size_t i = 0; i < space.table().inputs.size(); ++i) {
        const Class c = space.table().inputs[i];
        if (c == kNoClass) continue;
        const bool oriented = space.options().shapes == Shapes::oriented;
        const Tensor made = tensor(c, oriented ? space.program().inputs[i].dims : 0);
        if (std::ranges::find(inputs, made) == inputs.end()) inputs.push_back(made);
    }
    return inputs;
}

namespace {

struct Seat {
    std::size_t worker = 0;
    int workers = 1; // perhaps fewer than were asked for
};

Seat this_seat() {
#ifdef _OPENMP
    return {static_cast<std::size_t>(omp_get_thread_num()), omp_get_num_threads()};
#else
    return {};
#endif
}

} // namespace

// Continues programs for one worker.
class Explorer {
  public:
    // Nodes of one item breadth-first at most, and how many of them make work of their own.
    static constexpr std::size_t kBatch = 64, kBatches = 64;
    // Programs that wait for what other processes make.
    static constexpr std::size_t kMostParked = 256;

    Explorer(Listing &listing, Track &track);

    // Everything that an item leads to, but for what goes back to the pool.
    void run(const Item &item, Pool &pool);
    void run_errand(const Item &item, Pool &pool);
    // The same as far as the next kernel; the rest goes to the pool, each program as an item.
    void split(const Item &item, Pool &pool);

    const Counters &counters() const { return catalogue_.counters(); }
    std::uint64_t nodes() const { return nodes_; }
    std::uint64_t given() const { return given_; }

    void add(State &state, Tensor t, bool needs);
    // Of inputs that a program's first kernel may have.
    std::vector<State::Set> first_sets();

  private:
    using Set = State::Set;
    static constexpr int kMostTensors = Listing::kMostTensors;

    // A program whose next kernels are being tried. What is left are the kernels of the set at `at` from `signature` + 1
    // to `signatures`, then the sets from `at` + 1 to `end`; none that comes after `to` is here.
    struct Frame {
        State state;
        std::vector<Set> sets; // of inputs, in order
        std::size_t at = 0, end = 0;
        Set to = 0;
        std::uint32_t signature = 0, signatures = 0;
    };

    // Of so many tensors that are needed the sets have room in a small table.
    static constexpr int kMostNeeded = 10;

    struct Closing {
        const Kernels *kernels;
        Few::Key unused;
        int left; // kernels after them
        std::vector<std::uint32_t> signatures;
    };

    void run(const Item &item, Pool &pool, bool breadth, std::size_t batch);
    void restore(const Prefix &node);
    void expand(const State &state, const Item *part);
    void last(const State &state, Set from);
    void child(const Frame &frame, const Kernels &found, Set owners);
    // Whether all that it takes is known.
    bool finish(const State &state, Set inputs, bool only_ask = false);
    void list_last(const State &state);
    bool list_last_bundles(const State &state);
    static bool precedes(Set a, Set b);
    bool stores(Set inputs, bool last);
    void share();
    bool ends(const State &state, Set owners, const Item *part) const;
    [[gnu::cold]] bool known(const Frame &frame, const Item *part);
    [[gnu::cold]] void leave(Frame &frame, const Item *part);
    [[gnu::cold]] void park(Item item, const State &state, const Memo::Entry &waits_for);
    void flush();
    bool has(const State &state, Tensor t) const;
    Set owned(Set inputs) const;
    void list_sets(Frame &frame, Set from);
    void list_closing_sets(Frame &frame, Set from);
    Few::Key classes(Set tensors) const;
    const Closing *closing(const Kernels &found, Few::Key unused, int left);
    bool usable(Set needed, int kernels);
    const Kernels *kernels(Set inputs, bool last);

    Listing &listing_;
    const Space &space_;
    Control &control_;
    Track &track_;
    Catalogue catalogue_;
    Ends ends_;
    Bundles bundles_;
    std::deque<Closing> closings_;
    FlatMap<const Closing *> closing_; // of kernels and what is unused beside
    std::array<Tensor, kMostTensors> tensors_{};
    std::array<std::uint64_t, kMostTensors> hashes_{};
    std::array<Bundles::Id, kMostTensors> ids_{};
    std::vector<std::uint8_t> place_of_; // of a tensor by its number, where it was last
    std::vector<Set> last_sets_;         // of inputs, for the last kernel
    std::array<std::uint8_t, kMostTensors> owners_{}; // the first name of the same tensor
    std::array<Choice, kMostKernels> path_{};         // of the program whose tensors these are
    std::array<int, kMostKernels + 1> counts_{};      // of its tensors, after each kernel
    std::size_t restored_ = 0;                                // kernels of it, still there after an item
    std::array<Frame, kMostKernels> frames_;
    int base_ = 0, depth_ = 0; // of the frames
    const Item *item_ = nullptr;
    std::size_t place_ = 0, nodes_left_ = 0; // in the item: what this worker has of it
    Segment *segment_ = nullptr;
    Pool *pool_ = nullptr;
    bool breadth_ = false;
    std::size_t batch_ = kBatch;
    std::vector<Prefix> children_;
    std::uint64_t nodes_ = 0, given_ = 0;
};

Explorer::Explorer(Listing &listing, Track &track)
    : listing_(listing), space_(listing.space_), control_(listing.control_), track_(track),
      catalogue_(listing.space_, listing.limits_.block, listing.control_, listing.memo_, track),
      ends_(listing.space_, listing.limits_.block, listing.limits_.inputs, listing.limits_.kernels),
      bundles_(listing.space_, listing.limits_.block, listing.limits_.inputs) {
    State start;
    for (const Tensor input : program_inputs(space_)) add(start, input, false);
    counts_[0] = start.count;
}

bool Explorer::has(const State &state, Tensor t) const {
    return std::find(tensors_.begin(), tensors_.begin() + state.count, t) != tensors_.begin() + state.count;
}

void Explorer::add(State &state, Tensor t, bool needs) {
    const auto owner = static_cast<std::uint8_t>(state.count);
    if (needs) state.needed |= Set{1} << state.count;
    for (const Class name : listing_.names_[class_of(t)]) {
        const Tensor named = tensor(name, dims_of(t));
        if (has(state, named)) continue;
        if (state.count == kMostTensors) throw Overflow("more than 64 tensors stand between kernels");
        const auto place = static_cast<std::size_t>(state.count++);
        tensors_[place] = named;
        hashes_[place] = Memo::hash_of(named);
        const Bundles::Id id = ids_[place] = bundles_.meet(named);
        if (id >= place_of_.size()) place_of_.resize(id + std::size_t{1});
        place_of_[id] = static_cast<std::uint8_t>(place);
        owners_[place] = owner;
    }
}

Explorer::Set Explorer::owned(Set inputs) const {
    if (!space_.renamings()) return inputs;
    Set owners = 0;
    for (; inputs; inputs &= inputs - 1) owners |= Set{1} << owners_[static_cast<std::size_t>(__builtin_ctzll(inputs))];
    return owners;
}

// Whether one kernel may use all of these for what it stores.
bool Explorer::stores(Set inputs, bool last) {
    // A look at a set without them takes about as long.
    bundles_.afford(16);
    std::array<std::uint64_t, Bundles::kMost> hashes{};
    std::size_t count = 0;
    for (; inputs; inputs &= inputs - 1) {
        const auto place = static_cast<std::size_t>(__builtin_ctzll(inputs));
        if (count == hashes.size() || !bundles_.knows(ids_[place])) return true;
        hashes[count++] = hashes_[place];
    }
    return bundles_.any({hashes.data(), count}, last);
}

const Kernels *Explorer::kernels(Set inputs, bool last) {
    std::uint64_t hash = 0;
    for (Set left = inputs; left; left &= left - 1) hash += hashes_[static_cast<std::size_t>(__builtin_ctzll(left))];
    return catalogue_.kernels(hash, last, [&] {
        std::vector<Tensor> tensors;
        if (!stores(inputs, last)) return tensors;
        for (Set left = inputs; left; left &= left - 1) tensors.push_back(tensors_[static_cast<std::size_t>(__builtin_ctzll(left))]);
        std::ranges::sort(tensors);
        return tensors;
    });
}

Few::Key Explorer::classes(Set tensors) const {
    Few::Key classes = Few::kNone;
    for (; tensors; tensors &= tensors - 1) classes = Few::with(classes, class_of(tensors_[static_cast<std::size_t>(__builtin_ctzll(tensors))]));
    return classes;
}

// Whether so many kernels more can use all of these, as far as any few of them tell.
bool Explorer::usable(Set needed, int kernels) {
    const auto choose = [&](const auto &self, Few::Key some, Set others, int more) -> bool {
        if (!more || !others) return ends_.reachable(some, kernels);
        for (; __builtin_popcountll(others) >= more; others &= others - 1)
            if (!self(self, Few::with(some, class_of(tensors_[static_cast<std::size_t>(__builtin_ctzll(others))])), others & (others - 1), more - 1))
                return false;
        return true;
    };
    return choose(choose, Few::kNone, needed, std::min(static_cast<int>(Few::kMost), __builtin_popcountll(needed)));
}

// The sets of inputs that the next kernel may have, in order.
void Explorer::list_sets(Frame &frame, Set from) {
    const auto extend = [&](const auto &self, Set inputs, int places, int more) -> void {
        if (inputs >= from) frame.sets.push_back(inputs);
        for (int place = 0; more && place < places; ++place) {
            const Set chosen = inputs | Set{1} << place;
            if (chosen >= frame.to) return;
            if ((chosen | ((Set{1} << place) - 1)) >= from) self(self, chosen, place, more - 1);
        }
    };
    frame.sets.clear();
    extend(extend, 0, frame.state.count, listing_.limits_.inputs);
    frame.at = 0;
    frame.end = frame.sets.size();
}

// The same: only those that leave what the kernels after it can use.
void Explorer::list_closing_sets(Frame &frame, Set from) {
    const int left_after = listing_.limits_.kernels - depth_ - 1;
    std::array<int, kMostNeeded> needed{}; // their places
    int all = 0;
    for (Set left = frame.state.needed; left; left &= left - 1) needed[static_cast<std::size_t>(all++)] = __builtin_ctzll(left);
    // Of what is needed, sets have a bit for each.
    const auto first = [](int count) { return (1u << count) - 1; };
    enum : std::uint8_t { kUnknown, kNo, kYes };
    std::array<std::uint8_t, 1 << kMostNeeded> known{};
    const auto ends = [&](unsigned unused) {
        if (known[unused] == kUnknown) {
            Set left = 0;
            for (unsigned some = unused; some; some &= some - 1) left |= Set{1} << needed[static_cast<std::size_t>(__builtin_ctz(some))];
            known[unused] = usable(left, left_after) ? kYes : kNo;
        }
        return known[unused] == kYes;
    };
    // The first `open` of what is needed lie below `places`; `unused` are others.
    const auto extend = [&](const auto &self, Set inputs, int places, unsigned unused, int open, int more) -> void {
        if (inputs >= from && ends(unused | first(open))) frame.sets.push_back(inputs);
        int below = 0;
        for (int place = 0; more && place < places; ++place) {
            const Set chosen = inputs | Set{1} << place;
            if (chosen >= frame.to) return;
            const bool is_needed = below < open && needed[static_cast<std::size_t>(below)] == place;
            const unsigned left = unused | (first(open) & ~first(below + is_needed));
            if (ends(left)) {
                if ((chosen | ((Set{1} << place) - 1)) >= from) self(self, chosen, place, left, below, more - 1);
            } else if (!is_needed) {
                place = needed[static_cast<std::size_t>(below)] - 1;
                continue;
            }
            below += is_needed;
        }
    };
    frame.sets.clear();
    extend(extend, 0, frame.state.count, 0, all, listing_.limits_.inputs);
    frame.at = 0;
    frame.end = frame.sets.size();
}

// Of those kernels the ones after which those that are left can use what is unused beside their outputs; null where
// there is none.
const Explorer::Closing *Explorer::closing(const Kernels &found, Few::Key unused, int left) {
    bool fresh = false;
    const std::uint64_t key = mix(reinterpret_cast<std::uintptr_t>(&found) + static_cast<std::uintptr_t>(left)) + unused;
    const Closing *&known = closing_.at(key, fresh);
    if (fresh) {
        Closing made{&found, unused, left, {}};
        for (std::uint32_t s = 0; s < found.signatures.size(); ++s) {
            Few::Key after = unused;
            for (const Tensor output : found.signatures[s].outputs)
                if (output != kNoTensor && !space_.target(class_of(output))) after = Few::with(after, class_of(output));
            if (ends_.reachable(after, left)) made.signatures.push_back(s);
        }
        if (!made.signatures.empty()) known = &closings_.emplace_back(std::move(made));
    }
    if (known && (known->kernels != &found || known->unused != unused || known->left != left))
        throw std::logic_error("two sets of tensors have one hash");
    return known;
}

// The tensors of a program, made again but for what the last one had too.
void Explorer::restore(const Prefix &node) {
    std::size_t kept = 0;
    const auto depth = static_cast<std::size_t>(node.depth);
    while (kept < std::min(restored_, depth) && path_[kept] == node.path[kept]) ++kept;
    State state;
    state.count = counts_[kept];
    for (; kept < depth; ++kept) {
        path_[kept] = node.path[kept];
        for (const Tensor output : path_[kept].chosen().outputs)
            if (output != kNoTensor) add(state, output, false);
        counts_[kept + 1] = state.count;
    }
    restored_ = depth;
}

std::vector<State::Set> Explorer::first_sets() {
    Frame frame;
    frame.state.count = counts_[0];
    frame.to = Item::kAll;
    list_sets(frame, 1);
    return frame.sets;
}

void Explorer::run(const Item &item, Pool &pool) {
    // Where work is dealt out every worker has a pool of its own.
    const std::size_t pools = listing_.team_.sharing == Sharing::dealt ? static_cast<std::size_t>(listing_.team_.threads) : 1;
    const bool breadth = listing_.team_.order == Order::bfs && pool.bytes() < listing_.team_.frontier_bytes / pools;
    run(item, pool, breadth, kBatch);
}

void Explorer::split(const Item &item, Pool &pool) { run(item, pool, true, 1); }

void Explorer::run(const Item &item, Pool &pool, bool breadth, std::size_t batch) {
    item_ = &item;
    pool_ = &pool;
    segment_ = item.segment;
    breadth_ = breadth;
    batch_ = batch;
    nodes_left_ = item.nodes.size();
    for (place_ = 0; place_ < nodes_left_ && !control_.stopped(); ++place_) {
        const Prefix &node = item.nodes[place_];
        restore(node);
        if (place_ == 0) track_.to(Activity::busy);
        base_ = depth_ = node.depth;
        expand(node.state, &item);
    }
    flush();
    listing_.book_.close(*segment_);
}

void Explorer::run_errand(const Item &item, Pool &pool) {
    const Activity before = track_.to(Activity::busy);
    if (catalogue_.make(item.errand)) pool.release();
    track_.to(before);
}

// Kernels that end a program: they use everything that is needed and make every target that is left.
bool Explorer::finish(const State &state, Set inputs, bool only_ask) {
    const Kernels *known = kernels(inputs, true);
    if (!known || only_ask) return known;
    const Kernels &found = *known;
    for (std::uint32_t s = 0; s < found.signatures.size(); ++s) {
        int made = 0;
        bool again = false;
        for (const Tensor output : found.signatures[s].outputs) {
            made += output != kNoTensor;
            again |= output != kNoTensor && has(state, output);
        }
        if (made != state.targets_left || again) continue;
        // Split depth-first, what comes after a program's continuations is written after them.
        if (batch_ == 1) flush();
        path_[static_cast<std::size_t>(depth_)] = {&found, s};
        listing_.book_.add(*segment_, {path_.data(), static_cast<std::size_t>(depth_) + 1});
    }
    return true;
}

// The sets of inputs that the last kernel may have: they hold all that is needed. Those with the same first tensors beside it
// follow one another, the shorter first.
void Explorer::list_last(const State &state) {
    last_sets_.clear();
    if (list_last_bundles(state)) return;
    const auto extend = [&](const auto &self, Set inputs, Set others, int more) -> void {
        if (inputs && inputs >= state.last_inputs) last_sets_.push_back(inputs);
        for (; others && more; others &= others - 1) self(self, inputs | (others & -others), others & (others - 1), more - 1);
    };
    const Set all = state.count == kMostTensors ? ~Set{0} : (Set{1} << state.count) - 1;
    extend(extend, state.needed, all & ~state.needed, listing_.limits_.inputs - __builtin_popcountll(state.needed));
}

// In the order of such sets, of what they have beside that.
bool Explorer::precedes(Set a, Set b) {
    const Set apart = a ^ b, first = apart & -apart, above = ~(first | (first - 1));
    return a & first ? (b & above) != 0 : (a & above) == 0 && apart;
}

// The same, without any from which nothing can be made. False where those are not known.
bool Explorer::list_last_bundles(const State &state) {
    if (!state.needed || !bundles_.lists_last()) return false;
    bundles_.afford(static_cast<std::size_t>(state.count));
    for (int place = 0; place < state.count; ++place)
        if (!bundles_.knows(ids_[static_cast<std::size_t>(place)])) return false;
    std::uint64_t needed = 0;
    std::span<const std::uint32_t> fewest;
    for (Set left = state.needed; left; left &= left - 1) {
        const Bundles::Id id = ids_[static_cast<std::size_t>(__builtin_ctzll(left))];
        const auto with = bundles_.last_with(id);
        if (!needed || with.size() < fewest.size()) fewest = with;
        needed |= std::uint64_t{1} << id % 64;
    }
    for (const std::uint32_t each : fewest) {
        const Bundles::Bundle &bundle = bundles_[each];
        if (needed & ~bundle.mask) continue;
        Set inputs = 0;
        for (const Bundles::Id id : bundle.all()) {
            const std::size_t place = place_of_[id];
            if (static_cast<int>(place) >= state.count || ids_[place] != id) break;
            inputs |= Set{1} << place;
        }
        const bool there = __builtin_popcountll(inputs) == bundle.size;
        if (there && !(state.needed & ~inputs) && inputs >= state.last_inputs) last_sets_.push_back(inputs);
    }
    std::ranges::sort(last_sets_, precedes, [&](Set inputs) { return inputs & ~state.needed; });
    return true;
}

// The last kernel. Not of sets that precede `from`.
void Explorer::last(const State &state, Set from) {
    list_last(state);
    Set missing = 0;
    const Memo::Entry *missed = nullptr;
    for (const Set inputs : last_sets_) {
        if (control_.stopped()) return;
        if (precedes(inputs & ~state.needed, from & ~state.needed)) continue;
        // What else is missing is asked for at once.
        if (finish(state, inputs, missed) || missed) continue;
        missed = &catalogue_.missed();
        missing = inputs;
    }
    if (!missed) return;
    Item item;
    item.from = missing;
    park(std::move(item), state, *missed);
}

bool Explorer::ends(const State &state, Set owners, const Item *part) const {
    return !(part && part->first) && (owners & state.needed) == state.needed;
}

// Whether there is all that the frame's next set of inputs takes. What is not is asked for.
bool Explorer::known(const Frame &frame, const Item *part) {
    const Set inputs = frame.sets[frame.at];
    const bool between = depth_ + 1 == listing_.limits_.kernels || kernels(inputs, false);
    return (!ends(frame.state, owned(inputs), part) || kernels(inputs, true)) && between;
}

// The frame's next sets of inputs wait for what another process makes; those after them do not.
void Explorer::leave(Frame &frame, const Item *part) {
    const Memo::Entry &missed = catalogue_.missed();
    Item item;
    item.from = frame.sets[frame.at];
    known(frame, part);
    while (frame.at + 1 < frame.end) {
        ++frame.at;
        if (!known(frame, part)) continue;
        --frame.at;
        break;
    }
    item.to = frame.sets[frame.at] + 1;
    if (part) {
        item.first = part->first;
        item.last = part->last;
    }
    park(std::move(item), frame.state, missed);
}

// Between what was found before it and what will be after it. It is asked for within a moment.
void Explorer::park(Item item, const State &state, const Memo::Entry &waits_for) {
    flush();
    Prefix &node = item.nodes.emplace_back();
    node.state = state;
    node.depth = depth_;
    std::copy_n(path_.begin(), depth_, node.path.begin());
    Segment &rest = listing_.book_.after(*segment_, segment_->level());
    item.segment = &listing_.book_.after(*segment_, item.level());
    listing_.book_.close(*segment_);
    segment_ = &rest;
    pool_->park(std::move(item), waits_for);
    const Activity before = track_.to(Activity::waiting);
    while (pool_->parked() > kMostParked && !control_.poll()) {
        if (const auto errand = pool_->errand()) run_errand(*errand, *pool_);
        else std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    track_.to(before);
}

// Of a program, or of that part of its continuations.
void Explorer::expand(const State &state, const Item *part) {
    // Where every block search is known nobody else looks at the clock.
    if ((++nodes_ & 1023) == 0) control_.poll();
    const int left = listing_.limits_.kernels - depth_;
    // The first kernel's sets are walked one by one, so that they can be shared.
    if (left == 1 && depth_ && !space_.renamings()) {
        last(state, part ? part->from : 0);
        return;
    }
    Frame &frame = frames_[static_cast<std::size_t>(depth_)];
    frame.state = state;
    frame.to = part ? part->to : Item::kAll;
    const Set from = std::max({Set{1}, state.last_inputs, part ? part->from : 0});
    const bool closes = left > 1 && !space_.renamings() && __builtin_popcountll(state.needed) <= kMostNeeded;
    if (closes) list_closing_sets(frame, from);
    else list_sets(frame, from);
    for (; frame.at < frame.end; ++frame.at) {
        if (control_.stopped()) return;
        frame.signatures = 0;
        if (pool_->wanting() > 0) share();
        if (pool_->errands())
            if (const auto errand = pool_->errand()) run_errand(*errand, *pool_);
        const Set inputs = frame.sets[frame.at], owners = owned(inputs);
        const Kernels *between = left > 1 ? kernels(inputs, false) : nullptr;
        if ((left > 1 && !between) || (ends(state, owners, part) && !finish(state, inputs))) {
            leave(frame, part);
            continue;
        }
        if (left == 1 || between->signatures.empty()) continue;
        const Kernels &found = *between;
        frame.signature = part ? part->first : 0;
        if (inputs == state.last_inputs) frame.signature = std::max(frame.signature, state.last_signature + 1);
        frame.signatures = static_cast<std::uint32_t>(found.signatures.size());
        if (part) frame.signatures = std::min(frame.signatures, part->last);
        if (closes) {
            const Closing *some = closing(found, classes(state.needed & ~inputs), left - 1);
            if (!some) continue;
            for (const std::uint32_t signature : some->signatures) {
                if (signature < frame.signature) continue;
                if (signature >= frame.signatures) break;
                frame.signature = signature;
                child(frame, found, owners);
            }
        } else {
            for (; frame.signature < frame.signatures; ++frame.signature) child(frame, found, owners);
        }
    }
}

void Explorer::child(const Frame &frame, const Kernels &found, Set owners) {
    const auto &outputs = found.signatures[frame.signature].outputs;
    if (has(frame.state, outputs[0]) || (outputs[1] != kNoTensor && has(frame.state, outputs[1]))) return;
    const int left = listing_.limits_.kernels - depth_;
    State next;
    next.count = frame.state.count;
    next.targets_left = frame.state.targets_left;
    next.needed = frame.state.needed & ~owners;
    for (const Tensor output : outputs) {
        if (output == kNoTensor) continue;
        const bool target = space_.target(class_of(output));
        next.targets_left -= target;
        add(next, output, !target);
    }
    next.last_inputs = frame.sets[frame.at];
    next.last_signature = frame.signature;
    // Each kernel that is left takes so many of what is needed, and all but the last add one.
    if (__builtin_popcountll(next.needed) > (left - 1) * (listing_.limits_.inputs - 1) + 1) return;
    if (__builtin_popcountll(next.needed) > static_cast<int>(Few::kMost) && !space_.renamings() && !usable(next.needed, left - 1)) return;
    path_[static_cast<std::size_t>(depth_)] = {&found, frame.signature};
    if (breadth_) {
        Prefix &made = children_.emplace_back();
        made.state = next;
        made.depth = depth_ + 1;
        std::copy_n(path_.begin(), made.depth, made.path.begin());
        if (children_.size() == kBatch * kBatches) flush();
        return;
    }
    ++depth_;
    expand(next, nullptr);
    --depth_;
}

// Gives away half of the shallowest work that is open: it is the largest, and what remains comes before it.
void Explorer::share() {
    const auto begin = item_->nodes.begin();
    Item item;
    if (nodes_left_ > place_ + 1) {
        const std::size_t kept = place_ + 1 + (nodes_left_ - place_ - 1) / 2;
        item.nodes.assign(begin + static_cast<std::ptrdiff_t>(kept), begin + static_cast<std::ptrdiff_t>(nodes_left_));
        nodes_left_ = kept;
    } else {
        const auto more_sets = [](const Frame &frame) { return frame.end > frame.at + 1; };
        const auto more = [&](const Frame &frame) { return more_sets(frame) || frame.signatures > frame.signature + 1; };
        auto depth = static_cast<std::size_t>(base_);
        while (depth <= static_cast<std::size_t>(depth_) && !more(frames_[depth])) ++depth;
        if (depth > static_cast<std::size_t>(depth_)) return;
        Frame &frame = frames_[depth];
        if (more_sets(frame)) {
            item.to = frame.to;
            frame.end = frame.at + 1 + (frame.end - frame.at - 1) / 2;
            item.from = frame.to = frame.sets[frame.end];
        } else {
            item.from = frame.sets[frame.at];
            item.to = item.from + 1;
            item.last = frame.signatures;
            item.first = frame.signatures = frame.signature + 1 + (frame.signatures - frame.signature - 1) / 2;
        }
        Prefix &node = item.nodes.emplace_back();
        node.state = frame.state;
        node.depth = static_cast<int>(depth);
        std::copy_n(path_.begin(), depth, node.path.begin());
    }
    const Activity before = track_.to(Activity::stealing);
    ++given_;
    item.segment = &listing_.book_.after(*segment_, item.level());
    pool_->put(std::move(item));
    track_.to(before);
}

// What was found breadth-first becomes work of its own. What follows here goes after all of it.
void Explorer::flush() {
    if (children_.empty()) return;
    Segment &rest = listing_.book_.after(*segment_, segment_->level());
    std::vector<Item> items;
    for (std::size_t end = children_.size(); end > 0;) {
        const std::size_t size = (end - 1) % batch_ + 1;
        Item &item = items.emplace_back();
        item.nodes.assign(children_.begin() + static_cast<std::ptrdiff_t>(end - size), children_.begin() + static_cast<std::ptrdiff_t>(end));
        item.segment = &listing_.book_.after(*segment_, item.level());
        end -= size;
    }
    children_.clear();
    listing_.book_.close(*segment_);
    segment_ = &rest;
    for (auto item = items.rbegin(); item != items.rend(); ++item) pool_->put(std::move(*item));
}

// The listing ------------------------------------------------------------------------------------------------------

Listing::Listing(const Space &space, const KernelLimits &limits, Control &control, const Team &team)
    : space_(space), limits_(limits), control_(control), team_(team), book_(control, team.ranks ? 0 : team.graphs, team.order),
      pool_(control, team.threads, team.ranks > 0) {
    if (limits.kernels > kMostKernels) throw std::invalid_argument("a program has at most 8 kernels of its own");
#ifndef _OPENMP
    team_.threads = 1;
#endif
    workers_.resize(static_cast<std::size_t>(team_.threads));
    for (std::size_t c = 0; c < space.classes(); ++c) names_.push_back(space.names_of(static_cast<Class>(c)));
    std::vector<Tensor> inputs;
    for (const Tensor input : program_inputs(space))
        for (const Class name : names_[class_of(input)])
            if (const Tensor named = tensor(name, dims_of(input)); std::ranges::find(inputs, named) == inputs.end()) inputs.push_back(named);
    inputs_ = static_cast<int>(inputs.size());
}

Item Listing::whole() {
    Item item;
    item.segment = &book_.first();
    Prefix &root = item.nodes.emplace_back();
    root.state.count = inputs_;
    root.state.targets_left = static_cast<int>(space_.table().outputs.size());
    return item;
}

// At least as many items, in order, where there are.
std::vector<Item> Listing::split(Explorer &explorer, std::size_t enough) {
    Pool pool(control_, 1);
    std::vector<Item> items;
    if (limits_.kernels == 1) {
        // Sets of inputs instead of programs.
        const std::vector<Set> sets = explorer.first_sets();
        const std::size_t parts = std::min(sets.size(), enough);
        for (std::size_t part = parts; part-- > 0;) {
            Item &item = items.emplace_back(whole());
            item.from = sets[sets.size() * part / parts];
            item.to = part + 1 < parts ? sets[sets.size() * (part + 1) / parts] : Item::kAll;
            if (part) item.segment = &book_.after(book_.first(), 0);
        }
        std::ranges::reverse(items);
        return items;
    }
    pool.put(whole());
    while (pool.size() && pool.size() < enough && pool.lowest() < limits_.kernels - 1)
        if (const auto item = pool.spare()) explorer.split(*item, pool);
    while (auto item = pool.spare()) items.push_back(std::move(*item));
    return items;
}

void Listing::work(Explorer &explorer, Track &track, Pool &pool, Worker &worker) const {
    while (true) {
        track.to(Activity::waiting);
        const auto item = pool.take();
        if (!item) return;
        if (item->is_errand()) {
            explorer.run_errand(*item, pool);
            continue;
        }
        track.to(Activity::stealing);
        ++worker.items;
        explorer.run(*item, pool);
    }
}

void Listing::run() {
    std::vector<std::unique_ptr<Pool>> pools; // where work is dealt out
    std::exception_ptr fault;
    std::mutex mutex;
    const auto guarded = [&](const auto &act) {
        try {
            act();
        } catch (...) {
            control_.ask(Stop::incomplete);
            const std::lock_guard lock(mutex);
            if (!fault) fault = std::current_exception();
        }
    };
#pragma omp parallel num_threads(team_.threads)
    {
        const Seat seat = this_seat();
        Worker &worker = workers_[seat.worker];
        Track track(control_, team_.timeline);
        std::optional<Explorer> explorer;
        guarded([&] {
            explorer.emplace(*this, track);
            if (seat.worker) return;
            pool_.seat(seat.workers);
            track.to(Activity::busy);
            if (team_.ranks) {
                if (team_.rank == 0) prepare(split(*explorer, kItemsPerWorker * static_cast<std::size_t>(team_.ranks * seat.workers)));
            } else if (team_.sharing == Sharing::shared) {
                pool_.put(whole());
            } else {
                for (int i = 0; i < seat.workers; ++i) pools.push_back(std::make_unique<Pool>(control_, 1));
                std::size_t next = 0;
                for (Item &item : split(*explorer, kItemsPerWorker * pools.size())) pools[next++ % pools.size()]->put(std::move(item));
            }
        });
        track.to(Activity::waiting);
#pragma omp barrier
        guarded([&] {
            if (!control_.stopped()) work(*explorer, track, pools.empty() ? pool_ : *pools[seat.worker], worker);
        });
        track.to(Activity::waiting);
#pragma omp barrier
        if (explorer) {
            worker.counters = explorer->counters();
            worker.nodes = explorer->nodes();
            worker.given = explorer->given();
        }
        worker.times += track.take();
    }
    if (!team_.ranks) plans_ = book_.take();
    if (fault) std::rethrow_exception(fault);
}

// Several processes ------------------------------------------------------------------------------------------------

// Every piece of what the search is split into is a chain of its own; some of them are what was found while splitting.
void Listing::prepare(std::vector<Item> items) {
    const std::lock_guard lock(mutex_);
    items_ = std::move(items);
    const std::vector<Segment *> segments = book_.cut();
    std::unordered_map<const Segment *, std::uint64_t> numbers;
    for (std::size_t id = 0; id < segments.size(); ++id) numbers[segments[id]] = id;
    for (const Item &item : items_) {
        ids_.push_back(numbers.at(item.segment));
        numbers.erase(item.segment);
    }
    for (Segment *segment : segments)
        if (const auto found = numbers.find(segment); found != numbers.end()) chains_.emplace_back(found->second, segment);
    memo_.deal(team_.rank, team_.ranks);
    split_ = true;
}

std::string Listing::begin() {
    const std::lock_guard lock(mutex_);
    if (!split_) return {};
    Writer writer;
    const auto entries = memo_.filled(0);
    told_ = entries.size();
    write(writer, entries);
    writer.put<std::uint64_t>(items_.size());
    for (std::size_t i = 0; i < items_.size(); ++i) {
        writer.put(ids_[i]);
        write(writer, items_[i], memo_);
    }
    return writer.take();
}

void Listing::begin(std::string_view split) {
    const std::lock_guard lock(mutex_);
    if (split_) return;
    Reader reader(split);
    read_entries(reader, memo_);
    for (auto left = reader.get<std::uint64_t>(); left > 0; --left) {
        ids_.push_back(reader.get<std::uint64_t>());
        items_.push_back(read_item(reader, memo_));
    }
    memo_.deal(team_.rank, team_.ranks);
    split_ = true;
}

std::size_t Listing::items() {
    const std::lock_guard lock(mutex_);
    return items_.size();
}

void Listing::offer(std::size_t place) {
    const std::lock_guard lock(mutex_);
    Item item = std::move(items_.at(place));
    if (!item.segment) item.segment = &book_.apart(item.level());
    chains_.emplace_back(ids_[place], item.segment);
    pool_.put(std::move(item));
}

std::string Listing::give() {
    const std::lock_guard lock(mutex_);
    std::vector<Item> items = pool_.lend();
    // A search that is made here by now is not to be made again.
    for (bool fresh = false; !items.empty() && items.front().is_errand() && !fresh;)
        if (memo_.at(items.front().errand.key, fresh, true); !fresh) items = pool_.lend();
    Writer writer;
    for (const Item &item : items) {
        const std::uint64_t id = kFirstGiven * static_cast<std::uint64_t>(team_.rank + 1) + given_++;
        writer.put(id);
        write(writer, item, memo_);
        if (item.segment) book_.send(*item.segment, id);
    }
    return items.empty() ? std::string{} : writer.take();
}

void Listing::receive(std::string_view given) {
    const std::lock_guard lock(mutex_);
    Reader reader(given);
    std::vector<std::pair<std::uint64_t, Item>> items;
    while (reader.more()) {
        const auto id = reader.get<std::uint64_t>();
        items.emplace_back(id, read_item(reader, memo_));
    }
    pool_.release();
    for (auto &[id, item] : items) {
        if (item.is_errand()) {
            item.errand.lent = true;
        } else {
            item.segment = &book_.apart(item.level());
            chains_.emplace_back(id, item.segment);
        }
        pool_.put(std::move(item));
    }
}

std::vector<std::string> Listing::wanted() {
    std::vector<Writer> writers(static_cast<std::size_t>(std::max(1, team_.ranks)));
    for (const Wanted &wanted : memo_.wanted()) {
        Writer &writer = writers[static_cast<std::size_t>(memo_.maker(wanted.key))];
        writer.put(wanted.key);
        writer.put_all(wanted.inputs);
    }
    std::vector<std::string> bytes;
    for (Writer &writer : writers) bytes.push_back(writer.take());
    return bytes;
}

void Listing::ask(std::string_view wanted) {
    Reader reader(wanted);
    while (reader.more()) {
        Item item;
        item.errand.key = reader.get<std::uint64_t>();
        item.errand.inputs = reader.get_all<Tensor>();
        pool_.put(std::move(item));
    }
}

std::string Listing::fresh() {
    const std::lock_guard lock(mutex_);
    std::vector<const Memo::Entry *> entries = memo_.filled(told_);
    told_ += entries.size();
    std::erase_if(entries, [](const Memo::Entry *entry) { return entry->learned(); });
    if (entries.empty()) return {};
    Writer writer;
    write(writer, entries);
    return writer.take();
}

void Listing::learn(std::string_view made) {
    Reader reader(made);
    read_entries(reader, memo_);
    pool_.release();
}

std::string Listing::found(bool all) {
    const std::lock_guard lock(mutex_);
    Writer writer;
    bool any = false;
    std::erase_if(chains_, [&](const auto &chain) {
        if (!all && !Book::done(*chain.second)) return false;
        any = true;
        write(writer, Book::chain(*chain.second, chain.first));
        return true;
    });
    return any ? writer.take() : std::string{};
}

} // namespace tilesmith
