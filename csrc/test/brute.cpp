#include "brute.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../hash.hpp"

namespace tilesmith::test {

std::string written_input(int input) { return std::string("x") + std::to_string(input); }
std::string written_apply(int function, const std::string &x) { return std::string("f") + std::to_string(function) + "(" + x + ")"; }
std::string written_sum(bool over_loop, Bases over, const std::string &x) {
    return std::string(over_loop ? "gather" : "sum") + std::to_string(over) + "(" + x + ")";
}
std::string written_pair(Term term, Bases over, std::string x, std::string y) {
    if (term != Term::sub && term != Term::div && y < x) std::swap(x, y);
    const char *name = term == Term::add ? "add" : term == Term::sub ? "sub" : term == Term::mul ? "mul" : "div";
    return (term == Term::matmul ? std::string("matmul") + std::to_string(over) : name) + ("(" + x + "," + y + ")");
}
std::string written_graph(Base loop, const std::string &stored) { return std::to_string(loop) + ":" + stored; }

namespace {

// Two primes, the first one more than twice the second: exponentials live in a subgroup of the second one's order.
constexpr std::uint64_t kQ = 1073740571, kP = 2 * kQ + 1;
// Numbers that obey the stated axioms and no more: in each plane the inverse and the root are powers, which are
// multiplicative and cancel nothing; the inverse moves every plane to the next, so that it does not commute with the root;
// minus one is 1 in one plane, so that its square is 1 but x - x is not 0.
constexpr int kPlanes = 3, kRounds = 2, kLayers = kPlanes * kRounds;
constexpr std::array<std::array<std::uint64_t, 2>, kPlanes> kInverse{{{97, 101}, {89, 83}, {79, 59}}};
constexpr std::array<std::array<std::uint64_t, 2>, kPlanes> kRoot{{{61, 67}, {71, 73}, {53, 47}}};
constexpr std::array<bool, kPlanes> kNegates{true, false, true};

// Outside exponentials a residue is one of the first prime, inside of the second.
enum Side { kOutside, kInside };

template <Side side> constexpr std::uint64_t reduced(std::uint64_t x) { return side == kOutside ? x % kP : x % kQ; }

template <Side side> std::uint64_t power(std::uint64_t x, std::uint64_t exponent) {
    std::uint64_t made = 1;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) made = reduced<side>(made * x);
        x = reduced<side>(x * x);
    }
    return made;
}

// A set of labels, a bit for each: the part of a base in the tile, and its part over the loop.
using Labels = std::uint32_t;
constexpr int kMaxLabels = 8;

using Id = std::uint32_t;
// The value of a step that is tried, but not kept.
constexpr Id kPending = ~Id{0};

enum class Kind : std::uint8_t { apply, sum, gather, join };

struct Step {
    Kind kind{};
    Term term{}; // of a join
    std::uint8_t function = 0;
    Bases over = 0;
    Labels summed = 0;
    Id a = 0, b = 0, made = 0;
};

// All values that were come across, each once. A value's residues lie over every label that it depends on, the lowest label
// fastest, layer after layer; those outside, then those inside where something may look there.
class Values {
  public:
    Values(const Program &program) : program_(program), known_(1 << 16) {
        if (!program.named || program.outputs.size() != 1) throw std::invalid_argument("a program of another kind");
        bool looks_inside = false;
        for (const Function &function : program.functions) looks_inside |= function.fn == Fn::exp;
        for (Base b = 1; b <= program.bases(); ++b)
            for (const bool loop : {false, true}) {
                if (loop && !(program.parts[b] & kInLoop)) continue;
                if (labels_.size() == kMaxLabels) throw std::invalid_argument("a program of too many dimensions");
                (loop ? looped_ : in_tile_)[b] = Labels{1} << labels_.size();
                labels_.push_back(b);
            }
        places_.resize(std::size_t{1} << 2 * labels_.size());
        firsts_.resize(places_.size());
        for (const Input &input : program.inputs) {
            Labels labels = 0;
            for (int i = 0; i < kRank; ++i)
                if (const Base b = dim(input.dims, i)) labels |= whole(bit(b));
            inputs.push_back(drawn(labels, looks_inside, 1000 + inputs.size()));
        }
        for (const Function &function : program.functions)
            for (const int id : {int{function.id}, int{function.eps}})
                if (id >= 0 && function.fn != Fn::opaque) constants_.emplace(id, drawn(0, looks_inside, static_cast<std::uint64_t>(id)));
    }

    Labels tile(Bases bases) const { return labels_of(in_tile_, bases); }
    Labels whole(Bases bases) const { return tile(bases) | labels_of(looped_, bases); }
    Labels looped(Base base) const { return looped_[base]; }
    Labels in_tiles() const { return tile(~Bases{1}); }
    Bases bases(Labels labels) const {
        Bases made = 0;
        for (std::size_t i = 0; i < labels_.size(); ++i)
            if (labels >> i & 1) made |= bit(labels_[i]);
        return made;
    }

    Labels labels(Id x) const { return x == kPending ? pending_labels_ : values_[x].labels; }
    std::size_t size() const { return values_.size(); }
    std::size_t bytes() const { return bytes_ + known_.bytes() + values_.capacity() * sizeof(Value); }

    // What each node of the program computes.
    std::vector<Id> nodes() {
        std::vector<Id> made;
        for (const Node &node : program_.nodes) {
            const auto at = [&](int place) { return made[static_cast<std::size_t>(place)]; };
            if (node.term == Term::permute || node.term == Term::rename) throw std::invalid_argument("a program of another kind");
            if (node.term == Term::input) {
                made.push_back(inputs[static_cast<std::size_t>(node.a)]);
                continue;
            }
            Step step{.kind = Kind::join, .term = node.term, .summed = whole(node.over), .a = at(node.a)};
            if (node.term == Term::apply) step.kind = Kind::apply, step.function = static_cast<std::uint8_t>(node.b);
            else if (node.term == Term::sum) step.kind = Kind::sum;
            else step.b = at(node.b);
            if (!possible(step)) throw std::invalid_argument("an exponential of another");
            made.push_back(number(step));
        }
        return made;
    }

    Labels labels(const Step &step) const {
        const Labels all = step.kind == Kind::join ? labels(step.a) | labels(step.b) : labels(step.a);
        return all & ~step.summed;
    }

    // There may be one exponential at most on any way.
    bool possible(const Step &step) const { return inside(step.a) || !exponential(step); }

    // The place of what a step makes among the values that are known; the same for the same numbers.
    Id number(const Step &step) {
        const bool looks = inside(step);
        whole_.clear();
        for (int l = 0; l < (looks ? 2 : 1) * kLayers; ++l) {
            evaluate(step, l, layer_);
            whole_.insert(whole_.end(), layer_.begin(), layer_.end());
        }
        return number(labels(step), looks, whole_);
    }

    // Makes it known as `kPending`; its layers are computed when they are asked for.
    void pend(const Step &step) {
        pending_ = step;
        pending_labels_ = labels(step);
        pending_inside_ = inside(step);
        pending_known_ = 0;
    }

    // Whether the first residue of what a step makes is that of another value.
    bool starts_alike(const Step &step, Id other) {
        std::uint64_t total = 0;
        if (step.kind == Kind::apply) {
            evaluate(step, 0, layer_);
            total = layer_[0];
        } else if (step.kind == Kind::join) {
            const Labels all = labels(step.a) | labels(step.b);
            const Places &in_x = places(all, labels(step.a)), &in_y = places(all, labels(step.b));
            const std::uint32_t *x = layer(step.a, 0), *y = layer(step.b, step.term == Term::div ? before(0) : 0);
            for (const std::uint16_t i : firsts(all, step.summed)) total += joined<kOutside>(step.term, x[in_x[i]], y[in_y[i]], 0);
        } else {
            const std::uint32_t *x = layer(step.a, 0);
            for (const std::uint16_t i : firsts(labels(step.a), step.summed)) total += x[i];
        }
        return total % kP == layer(other, 0)[0];
    }

    std::vector<Id> inputs;

  private:
    using Places = std::vector<std::uint16_t>;
    using Layer = std::vector<std::uint32_t>;

    struct Value {
        Labels labels = 0;
        bool inside = false;
        const std::uint32_t *data = nullptr;
    };

    static Labels labels_of(const std::array<Labels, kMaxBases + 1> &part, Bases bases) {
        Labels made = 0;
        for (std::size_t b = 1; b < part.size(); ++b)
            if (bases >> b & 1) made |= part[b];
        return made;
    }

    // Pairwise different, so that a number of terms never tells one sum for another.
    static std::size_t extent(Labels labels) {
        std::size_t made = 1;
        for (; labels; labels &= labels - 1) made *= static_cast<std::size_t>(std::countr_zero(labels)) + 2;
        return made;
    }

    std::size_t pair(Labels a, Labels b) const { return std::size_t{a} << labels_.size() | b; }

    // Of each element over all labels: where an array over some of them has it.
    const Places &places(Labels all, Labels some) {
        Places &made = places_[pair(all, some)];
        if (!made.empty()) return made;
        made.resize(extent(all));
        for (std::size_t i = 0; i < made.size(); ++i) {
            std::size_t rest = i, step = 1, place = 0;
            for (Labels left = all; left; left &= left - 1) {
                const Labels label = left & (~left + 1);
                const std::size_t length = extent(label);
                if (some & label) {
                    place += rest % length * step;
                    step *= length;
                }
                rest /= length;
            }
            made[i] = static_cast<std::uint16_t>(place);
        }
        return made;
    }

    // The elements that a sum over some labels puts first.
    const Places &firsts(Labels all, Labels over) {
        Places &made = firsts_[pair(all, over)];
        if (!made.empty()) return made;
        const Places &place = places(all, all & ~over);
        for (std::size_t i = 0; i < place.size(); ++i)
            if (place[i] == 0) made.push_back(static_cast<std::uint16_t>(i));
        return made;
    }

    bool exponential(const Step &step) const { return step.kind == Kind::apply && program_.functions[step.function].fn == Fn::exp; }
    bool inside(Id x) const { return x == kPending ? pending_inside_ : values_[x].inside; }
    bool inside(const Step &step) const {
        return inside(step.a) && !exponential(step) && (step.kind != Kind::join || inside(step.b));
    }

    const std::uint32_t *layer(Id x, int l) {
        const auto place = static_cast<std::size_t>(l);
        if (x != kPending) return values_[x].data + extent(values_[x].labels) * place;
        if (!(pending_known_ >> l & 1)) evaluate(pending_, l, pending_layers_[place]);
        pending_known_ |= 1u << l;
        return pending_layers_[place].data();
    }

    void evaluate(const Step &step, int l, Layer &made) {
        if (l < kLayers) evaluate<kOutside>(step, l, made);
        else evaluate<kInside>(step, l, made);
    }

    template <Side side> void evaluate(const Step &step, int l, Layer &made) {
        if (step.kind == Kind::apply) return apply<side>(step, l, made);
        made.assign(extent(labels(step)), 0);
        const Labels all = step.kind == Kind::join ? labels(step.a) | labels(step.b) : labels(step.a);
        const Places &place = places(all, all & ~step.summed);
        const std::uint32_t *x = layer(step.a, l);
        const auto add = [&](std::size_t i, std::uint64_t c) {
            made[place[i]] = static_cast<std::uint32_t>(reduced<side>(made[place[i]] + c));
        };
        if (step.kind != Kind::join) {
            for (std::size_t i = 0; i < place.size(); ++i) add(i, x[i]);
            return;
        }
        const std::uint32_t *y = layer(step.b, step.term == Term::div ? before(l) : l);
        const Places &in_x = places(all, labels(step.a)), &in_y = places(all, labels(step.b));
        for (std::size_t i = 0; i < place.size(); ++i) add(i, joined<side>(step.term, x[in_x[i]], y[in_y[i]], l));
    }

    // Of a quotient the second operand is one of the layer before.
    template <Side side> static std::uint64_t joined(Term term, std::uint64_t x, std::uint64_t y, int l) {
        switch (term) {
        case Term::add: return x + y;
        case Term::sub: return x + (kNegates[plane_of(l)] ? (side == kOutside ? kP : kQ) - y : y);
        case Term::div: return reduced<side>(x * inverse<side>(y, l));
        default: return reduced<side>(x * y);
        }
    }

    // The inverse moves every plane to the next.
    static constexpr int before(int l) { return l / kLayers * kLayers + (l + kLayers - kRounds) % kLayers; }
    static constexpr std::size_t plane_of(int l) { return static_cast<std::size_t>(l % kLayers / kRounds); }
    template <Side side> static std::uint64_t inverse(std::uint64_t x_before, int l) {
        return power<side>(x_before, kInverse[plane_of(before(l))][side]);
    }
    template <Side side> static std::uint64_t root(std::uint64_t x, int l) { return power<side>(x, kRoot[plane_of(l)][side]); }

    template <Side side> void apply(const Step &step, int l, Layer &made) {
        const Function &f = program_.functions[step.function];
        const std::size_t n = extent(labels(step.a));
        made.resize(n);
        const bool earlier = f.fn == Fn::rsqrt || f.fn == Fn::reciprocal;
        const int from = f.fn == Fn::exp ? l + kLayers : earlier ? before(l) : f.fn == Fn::opaque ? l % kLayers : l;
        const std::uint32_t *x = layer(step.a, from);
        const auto each = [&](auto of) {
            for (std::size_t i = 0; i < n; ++i) made[i] = static_cast<std::uint32_t>(of(std::uint64_t{x[i]}));
        };
        switch (f.fn) {
        case Fn::exp: return each([](std::uint64_t u) { return power<kOutside>(9, u); }); // 9 is a square, and so of order Q
        case Fn::square: return each([](std::uint64_t u) { return reduced<side>(u * u); });
        case Fn::sqrt: return each([l](std::uint64_t u) { return root<side>(u, l); });
        case Fn::rsqrt: return each([l](std::uint64_t u) { return inverse<side>(root<side>(u, before(l)), l); });
        case Fn::reciprocal: return each([l](std::uint64_t u) { return inverse<side>(u, l); });
        case Fn::scale: return each([c = constant(f.id, l)](std::uint64_t u) { return reduced<side>(u * c); });
        case Fn::shift: return each([c = constant(f.id, l)](std::uint64_t u) { return reduced<side>(u + c); });
        case Fn::opaque:
            return each([salt = static_cast<std::uint64_t>(f.id)](std::uint64_t u) {
                const std::uint64_t hash = mix(u ^ mix(salt) << 31);
                return side == kOutside ? hash % kP : mix(hash) % kQ;
            });
        case Fn::rms_norm: break;
        }
        const std::uint32_t *w = layer(step.a, before(l));
        const Labels all = labels(step.a), over = whole(bit(f.base));
        const Places &place = places(all, all & ~over);
        row_.assign(extent(all & ~over), 0);
        for (std::size_t i = 0; i < n; ++i) row_[place[i]] = reduced<side>(row_[place[i]] + std::uint64_t{w[i]} * w[i]);
        for (std::uint64_t &u : row_) {
            if (f.id >= 0) u = reduced<side>(u * constant(f.id, before(l)));
            if (f.eps >= 0) u = reduced<side>(u + constant(f.eps, before(l)));
            u = inverse<side>(root<side>(u, before(l)), l);
        }
        for (std::size_t i = 0; i < n; ++i) made[i] = static_cast<std::uint32_t>(reduced<side>(x[i] * row_[place[i]]));
    }

    std::uint64_t constant(int id, int l) { return layer(constants_.at(id), l)[0]; }

    Id drawn(Labels labels, bool looks_inside, std::uint64_t name) {
        const std::size_t half = extent(labels) * kLayers;
        Layer data(looks_inside ? 2 * half : half);
        for (std::size_t i = 0; i < data.size(); ++i)
            data[i] = static_cast<std::uint32_t>(1 + mix(name << 32 | i) % ((i < half ? kP : kQ) - 1));
        return number(labels, looks_inside, data);
    }

    Id number(Labels labels, bool inside, const Layer &data) {
        std::uint64_t key = mix(labels);
        for (std::size_t i = 0; i < extent(labels) * kLayers; ++i) key = (std::rotl(key, 23) ^ data[i]) * 0x9e3779b97f4a7c15u;
        bool fresh = false;
        Id &place = known_.at(mix(key) >> 1, fresh);
        if (fresh) {
            place = static_cast<Id>(values_.size());
            values_.push_back({labels, inside, store(data)});
        }
        return place;
    }

    const std::uint32_t *store(const Layer &data) {
        constexpr std::size_t kChunk = 1 << 20;
        if (data.size() > kChunk) throw std::invalid_argument("a program of too many dimensions");
        if (chunks_.empty() || chunk_used_ + data.size() > kChunk) {
            chunks_.push_back(std::make_unique<std::uint32_t[]>(kChunk));
            chunk_used_ = 0;
            bytes_ += kChunk * sizeof(std::uint32_t);
        }
        std::uint32_t *to = chunks_.back().get() + chunk_used_;
        std::ranges::copy(data, to);
        chunk_used_ += data.size();
        return to;
    }

    const Program &program_;
    std::vector<Base> labels_;
    std::array<Labels, kMaxBases + 1> in_tile_{}, looped_{};
    std::map<int, Id> constants_;
    FlatMap<Id> known_;
    std::vector<Value> values_;
    std::vector<std::unique_ptr<std::uint32_t[]>> chunks_;
    std::size_t chunk_used_ = 0, bytes_ = 0;
    std::vector<Places> places_, firsts_; // by two sets of labels
    Layer layer_, whole_;
    std::vector<std::uint64_t> row_;

    Step pending_;
    Labels pending_labels_ = 0;
    bool pending_inside_ = false;
    std::uint32_t pending_known_ = 0; // a bit for each layer
    std::array<Layer, 2 * kLayers> pending_layers_;
};

// Fingerprints that were seen.
class Seen {
  public:
    bool insert(std::uint64_t key) {
        key += key == 0;
        if ((size_ + 1) * 3 > slots_.size() * 2) {
            std::vector<std::uint64_t> old(slots_.size() * 2);
            old.swap(slots_);
            for (const std::uint64_t other : old)
                if (other) slots_[place(other)] = other;
        }
        const std::size_t at = place(key);
        if (slots_[at]) return false;
        slots_[at] = key;
        return ++size_;
    }
    std::size_t bytes() const { return slots_.size() * sizeof(std::uint64_t); }

  private:
    std::size_t place(std::uint64_t key) const {
        std::size_t at = key & (slots_.size() - 1);
        while (slots_[at] && slots_[at] != key) at = (at + 1) & (slots_.size() - 1);
        return at;
    }
    std::vector<std::uint64_t> slots_ = std::vector<std::uint64_t>(1 << 12);
    std::size_t size_ = 0;
};

// All block graphs in one loop.
class Blocks {
  public:
    static constexpr int kMost = 24;

    Blocks(const Program &program, Values &values, Base loop, const BruteLimits &limits, Brute &found)
        : program_(program), values_(values), loop_(loop), looped_(loop ? values.looped(loop) : 0), limits_(limits), found_(found),
          tile_(values.in_tiles()) {
        const std::vector<Id> nodes = values.nodes();
        for (const Id node : nodes) rank_ = std::max(rank_, std::popcount(values.labels(node) & tile_));
        target_ = nodes[static_cast<std::size_t>(program.outputs[0])];
        std::set<Bases> sets;
        for (Base b = 1; b <= program.bases(); ++b) sets.insert(bit(b));
        for (const Node &node : program.nodes) {
            if (node.term == Term::matmul || node.term == Term::sum) sets.insert(node.over);
            subtracts_ |= node.term == Term::sub;
        }
        sets_.assign(sets.begin(), sets.end());
        for (const Function &function : program.functions) squares_ |= function.fn == Fn::square;
    }

    void run(std::chrono::steady_clock::time_point began) {
        began_ = began;
        for (const Id input : values_.inputs) push(input, values_.labels(input) & looped_ ? kVarying : kInvariant, {});
        const int left = limits_.operators - static_cast<int>(count_);
        if (left > 0) grow(0, (1u << count_) - 1, left);
        found_.bytes = std::max(found_.bytes, bytes());
    }

  private:
    // Two add up to 1 only where one is of an iteration and the other after the loop.
    enum : std::uint8_t { kVarying = 0, kAfter = 1, kInvariant = 4 };
    struct Run {
        std::uint32_t first = 0, count = 0;
    };

    void push(Id number, std::uint8_t phase, const Step &step) {
        numbers_[count_] = number;
        phases_[count_] = phase;
        makers_[count_++] = step;
    }

    template <typename Take> void each_alone(Id a, Take take) {
        const Labels x = values_.labels(a), varies = x & looped_;
        for (std::size_t f = 0; f < program_.functions.size(); ++f) {
            const Function &function = program_.functions[f];
            // A macro that sums needs the whole dimension in its tile.
            if (function.fn == Fn::rms_norm && values_.whole(bit(function.base)) & ~(x & ~looped_)) continue;
            const Step step{.kind = Kind::apply, .function = static_cast<std::uint8_t>(f), .a = a};
            if (values_.possible(step)) take(step);
        }
        for (std::size_t i = 0; i <= sets_.size(); ++i) {
            const Bases over = i ? sets_[i - 1] : 0;
            if (over & ~values_.bases(x & ~looped_)) continue;
            const Labels inner = x & ~looped_ & values_.whole(over);
            if (inner) take(Step{.kind = Kind::sum, .over = over, .summed = inner, .a = a});
            if (varies) take(Step{.kind = Kind::gather, .over = over, .summed = inner | varies, .a = a});
        }
    }

    // In both orders where the order counts.
    template <typename Take> void each_together(Id a, Id b, Take take) {
        const Labels x = values_.labels(a) & ~looped_, y = values_.labels(b) & ~looped_;
        const Bases in_x = values_.bases(x), in_y = values_.bases(y), shared = in_x & in_y;
        if ((x & values_.whole(shared)) != (y & values_.whole(shared))) return;
        const auto join = [&](Term term, Id first, Id second) {
            take(Step{.kind = Kind::join, .term = term, .a = first, .b = second});
        };
        join(Term::add, a, b);
        if (a != b || !squares_) join(Term::mul, a, b);
        for (const bool turned : {false, true}) {
            if (turned && a == b) continue;
            join(Term::div, turned ? b : a, turned ? a : b);
            if (subtracts_) join(Term::sub, turned ? b : a, turned ? a : b);
        }
        for (const Bases over : sets_) {
            // A matrix product has a batch only beside rows or columns.
            if (over & ~shared || (shared != over && in_x == in_y)) continue;
            const Labels inner = (x | y) & values_.whole(over);
            take(Step{.kind = Kind::join, .term = Term::matmul, .over = over, .summed = inner, .a = a, .b = b});
        }
    }

    bool fits(const Step &step) const { return std::popcount(values_.labels(step) & tile_) <= rank_; }

    // Steps of a value, or of two, each computed once.
    template <typename Each> Run known(FlatMap<Run> &memo, std::uint64_t key, Each each) {
        bool fresh = false;
        Run &run = memo.at(key, fresh);
        if (!fresh) return run;
        run.first = static_cast<std::uint32_t>(steps_.size());
        each([&](const Step &step) {
            if (!fits(step)) return;
            steps_.push_back(step);
            steps_.back().made = values_.number(step);
        });
        run.count = static_cast<std::uint32_t>(steps_.size()) - run.first;
        return run;
    }

    std::size_t bytes() const {
        return values_.bytes() + seen_.bytes() + alone_.bytes() + together_.bytes() + steps_.capacity() * sizeof(Step);
    }

    bool out_of_limits() {
        if (found_.states % 256) return !found_.complete;
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began_;
        found_.bytes = std::max(found_.bytes, bytes());
        if (took.count() > limits_.seconds || found_.bytes > limits_.bytes) found_.complete = false;
        return !found_.complete;
    }

    // `state`: a fingerprint of the set of steps. `unused`: a bit for each value that nothing has used yet. `left`: steps
    // that may follow.
    void grow(std::uint64_t state, std::uint32_t unused, int left) {
        ++found_.states;
        --left;
        // So many of what is unused this step must use, if those that follow are to use the rest.
        const int due = std::popcount(unused) - left;
        if (due > 2 || out_of_limits()) return;
        const std::size_t count = count_;
        const auto idle = [&](std::size_t place) { return (unused >> place & 1) != 0; };
        // Nothing is to be known of what the last two steps make but whether they make the target.
        const auto offer = [&](FlatMap<Run> &memo, std::uint64_t key, std::uint8_t phase, std::uint32_t still, auto each) {
            const auto after = [&](const Step &step) { return step.kind == Kind::gather ? std::uint8_t{kAfter} : phase; };
            const auto gathers = [&](const Step &step) { return step.kind != Kind::gather || phase == kVarying; };
            if (left <= 1) {
                each([&](const Step &step) {
                    if (gathers(step)) end(step, after(step), still, left);
                });
                return;
            }
            const Run run = known(memo, key, each);
            for (std::uint32_t s = run.first; s < run.first + run.count; ++s)
                if (gathers(steps_[s])) take(state, s, after(steps_[s]), still, left);
        };
        for (std::size_t i = 0; i < count && due < 2; ++i) {
            if (due == 1 && !idle(i)) continue;
            const Id x = numbers_[i];
            offer(alone_, x, phases_[i], unused & ~(1u << i), [&](auto to) { each_alone(x, to); });
        }
        for (std::size_t i = 0; i < count; ++i)
            for (std::size_t j = i; j < count; ++j) {
                const int used = idle(i) + (i != j && idle(j));
                if (used < due || !meet(phases_[i], phases_[j])) continue;
                const Id x = std::min(numbers_[i], numbers_[j]), y = std::max(numbers_[i], numbers_[j]);
                offer(together_, std::uint64_t{x} << 32 | y, joined(phases_[i], phases_[j]), unused & ~(1u << i | 1u << j),
                      [&](auto to) { each_together(x, y, to); });
            }
    }

    static bool meet(std::uint8_t a, std::uint8_t b) { return a + b != kVarying + kAfter; }
    static std::uint8_t joined(std::uint8_t a, std::uint8_t b) { return a == kInvariant ? b : a; }

    void take(std::uint64_t state, std::uint32_t step, std::uint8_t phase, std::uint32_t still, int left) {
        const Id made = steps_[step].made;
        if (made == target_) {
            if (stores(phase, still)) keep(steps_[step]);
            return;
        }
        if (there(made)) return;
        const std::uint64_t grown = state + mix(step);
        if (!seen_.insert(grown)) return;
        push(made, phase, steps_[step]);
        grow(grown, still | 1u << (count_ - 1), left);
        --count_;
    }

    // A step after which at most one follows.
    void end(const Step &step, std::uint8_t phase, std::uint32_t still, int left) {
        if (stores(phase, still) && makes_target(step)) return keep(step);
        if (left == 0 || std::popcount(still) > 1 || !fits(step)) return;
        ++found_.states;
        values_.pend(step);
        const auto last = [&](std::uint8_t of, const Step &final) {
            if ((final.kind == Kind::gather && of != kVarying) || !stores(final.kind == Kind::gather ? std::uint8_t{kAfter} : of, 0)) return;
            if (values_.labels(final) != values_.labels(target_) || !values_.starts_alike(final, target_)) return;
            // Now what it makes has to be known.
            Step known = final;
            const Id made = values_.number(step);
            if (made == target_ || there(made)) return;
            push(made, phase, step);
            for (Id *operand : {&known.a, &known.b})
                if (*operand == kPending) *operand = made;
            if (values_.number(known) == target_) keep(known);
            --count_;
        };
        if (still == 0) {
            each_alone(kPending, [&](const Step &final) { last(phase, final); });
            each_together(kPending, kPending, [&](const Step &final) { last(phase, final); });
        }
        for (std::size_t i = 0; i < count_; ++i)
            if ((still == 0 || still >> i & 1) && meet(phase, phases_[i]))
                each_together(numbers_[i], kPending, [&](const Step &final) { last(joined(phase, phases_[i]), final); });
    }

    bool makes_target(const Step &step) {
        return values_.labels(step) == values_.labels(target_) && values_.starts_alike(step, target_) && values_.number(step) == target_;
    }

    bool there(Id number) const {
        const std::span<const Id> known(numbers_.data(), count_);
        return std::ranges::find(known, number) != known.end();
    }

    // Nothing needs the target but its store, and everything else must have been used for it.
    bool stores(std::uint8_t phase, std::uint32_t still) const { return still == 0 && phase == (loop_ ? kAfter : kInvariant); }

    void keep(const Step &step) { found_.graphs.insert(written_graph(loop_, written(step))); }

    std::string written(const Step &step) const {
        switch (step.kind) {
        case Kind::apply: return written_apply(step.function, written(step.a));
        case Kind::sum:
        case Kind::gather: return written_sum(step.kind == Kind::gather, step.over, written(step.a));
        case Kind::join: break;
        }
        return written_pair(step.term, step.over, written(step.a), written(step.b));
    }

    std::string written(Id number) const {
        std::size_t place = 0;
        while (numbers_[place] != number) ++place;
        return place < values_.inputs.size() ? written_input(static_cast<int>(place)) : written(makers_[place]);
    }

    const Program &program_;
    Values &values_;
    Base loop_;
    Labels looped_;
    const BruteLimits &limits_;
    Brute &found_;
    Labels tile_;
    Id target_ = 0;
    std::vector<Bases> sets_; // that one operator may sum over
    bool subtracts_ = false, squares_ = false;
    int rank_ = 0;
    std::chrono::steady_clock::time_point began_;
    std::vector<Step> steps_;
    FlatMap<Run> alone_, together_;
    Seen seen_;

    // The graph in the making.
    std::array<Id, kMost> numbers_{};
    std::array<std::uint8_t, kMost> phases_{};
    std::array<Step, kMost> makers_{};
    std::size_t count_ = 0;
};

} // namespace

Brute brute(const Program &program, const BruteLimits &limits) {
    const auto began = std::chrono::steady_clock::now();
    Brute found;
    Values values(program);
    if (limits.operators > Blocks::kMost) throw std::invalid_argument("a limit of too many operators");
    Bases loads = 0;
    for (const Id input : values.inputs) loads |= values.bases(values.labels(input));
    for (int loop = 0; loop <= program.bases(); ++loop) {
        const Base base = static_cast<Base>(loop);
        if (loop && (!values.looped(base) || !(loads & bit(base)))) continue;
        Blocks(program, values, base, limits, found).run(began);
    }
    found.values = values.size();
    return found;
}

} // namespace tilesmith::test
