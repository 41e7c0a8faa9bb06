#include "derive.hpp"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>

#include "kernels.hpp"

namespace tilesmith {
namespace {

constexpr double kSlack = 1.1; // what is dearer is of no interest

} // namespace

Deriver::Deriver(const Space &space, const Closure &closure, const Sizes &sizes, const Device &device, Control &control,
                 int threads)
    : space_(space), sizes_(sizes), device_(device), control_(control), threads_(threads) {
    for (const Tensor input : program_inputs(space)) number(input);
    given_.assign(count_, true);
    const Scheduler scheduler(space, sizes, device);
    for (const Kernels &kernels : closure.kernels())
        for (const Signature &signature : kernels.signatures) {
            Edge &edge = edges_.emplace_back();
            edge.kernels = &kernels;
            edge.signature = &signature;
            edge.splits = std::ranges::any_of(signature.implementations, [&](const Implementation &made) {
                return scheduler.depends_on_split(kernels, made, signature);
            });
            for (const Tensor input : kernels.inputs) edge.inputs.push_back(number(input));
            for (const Tensor output : signature.outputs)
                if (output != kNoTensor) edge.outputs.push_back(number(output));
            std::ranges::sort(edge.inputs);
            edge.inputs.erase(std::unique(edge.inputs.begin(), edge.inputs.end()), edge.inputs.end());
        }
    given_.resize(count_, false);
    uses_.resize(count_);
    for (const Class target : space.table().outputs) {
        const std::size_t before = goals_.size();
        for (const auto &[tensor, id] : numbers_)
            if (class_of(tensor) == target) goals_.push_back(id);
        reached_ &= goals_.size() > before;
    }
    counted_.edges = edges_.size();
}

// A tensor has one number under all its names.
Deriver::Id Deriver::number(Tensor t) {
    const auto find = [&](Tensor wanted) {
        return std::ranges::lower_bound(numbers_, wanted, {}, [](const auto &known) { return known.first; });
    };
    if (const auto known = find(t); known != numbers_.end() && known->first == t) return known->second;
    for (const Class name : space_.names_of(class_of(t))) {
        const Tensor named = tensor(name, dims_of(t));
        numbers_.insert(find(named), {named, count_});
    }
    return count_++;
}

// The cheapest tree to every tensor, where what is used twice is paid twice (Knuth 1977, a generalization of Dijkstra's
// algorithm).
Deriver::Tree Deriver::tree(const std::vector<bool> &there) const {
    Tree tree{std::vector<double>(count_, Cost::kNever), std::vector<int>(count_, -1)};
    std::vector<std::uint8_t> missing(pool_.size());
    std::vector<double> before(pool_.size(), 0);
    for (std::size_t p = 0; p < pool_.size(); ++p) missing[p] = static_cast<std::uint8_t>(edge(pool_[p]).inputs.size());
    std::vector<bool> settled(count_, false);
    using Entry = std::pair<double, Id>;
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
    for (Id t = 0; t < count_; ++t)
        if (there[t]) {
            tree.seconds[t] = 0;
            queue.emplace(0.0, t);
        }
    while (!queue.empty()) {
        const auto [seconds, t] = queue.top();
        queue.pop();
        if (settled[t]) continue;
        settled[t] = true;
        for (const std::uint32_t p : uses_[t]) {
            const Edge &edge = this->edge(pool_[p]);
            before[p] += seconds;
            if (--missing[p] || edge.seconds >= Cost::kNever) continue;
            const double made = before[p] + edge.seconds;
            for (const Id output : edge.outputs)
                if (made < tree.seconds[output]) {
                    tree.seconds[output] = made;
                    tree.edge[output] = pool_[p];
                    queue.emplace(made, output);
                }
        }
    }
    return tree;
}

// The edges that make a tensor, those that make its inputs first. What they make is there afterwards.
std::vector<int> Deriver::collect(const Tree &tree, Id goal, std::vector<bool> &there) const {
    std::vector<int> edges;
    const auto visit = [&](const auto &self, Id t) -> void {
        if (there[t] || tree.edge[t] < 0) return;
        const Edge &edge = this->edge(tree.edge[t]);
        for (const Id input : edge.inputs) self(self, input);
        if (there[t]) return;
        edges.push_back(tree.edge[t]);
        for (const Id output : edge.outputs) there[output] = true;
    };
    visit(visit, goal);
    return edges;
}

// Makes one tensor more, by its cheapest tree. False where nothing makes it.
bool Deriver::make(Id goal, State &state) const {
    if (state.there[goal]) return true;
    const Tree cheapest = tree(state.there);
    if (cheapest.seconds[goal] >= Cost::kNever) return false;
    pay(collect(cheapest, goal, state.there), state);
    return true;
}

void Deriver::pay(const std::vector<int> &edges, State &state) const {
    for (const int e : edges) {
        state.edges.push_back(e);
        state.seconds += edge(e).seconds;
    }
}

// Kernels of two stores that cost less than their outputs cost apart, those that save most first.
std::vector<int> Deriver::twins(const Tree &tree, const State &state) const {
    constexpr std::size_t kMost = 64;
    std::vector<std::pair<double, int>> saving;
    for (const int e : pool_) {
        const Edge &edge = this->edge(e);
        if (edge.outputs.size() < 2 || edge.seconds >= Cost::kNever) continue;
        if (state.there[edge.outputs[0]] || state.there[edge.outputs[1]]) continue;
        double together = edge.seconds;
        for (const Id input : edge.inputs) together += tree.seconds[input];
        const double apart = tree.seconds[edge.outputs[0]] + tree.seconds[edge.outputs[1]];
        if (together < apart) saving.emplace_back(together - apart, e);
    }
    std::ranges::sort(saving);
    if (saving.size() > kMost) saving.resize(kMost);
    std::vector<int> edges;
    for (const auto &[saved, e] : saving) edges.push_back(e);
    return edges;
}

bool Deriver::finish(State &state) const {
    return std::ranges::all_of(goals_, [&](Id goal) { return make(goal, state); });
}

// Without `unsplit`, only what has a split.
std::vector<Deriver::State> Deriver::share(std::size_t keep, bool unsplit) const {
    constexpr std::size_t kBeam = 8;
    constexpr int kPatience = 2; // levels without a better one
    State best{given_, {}, 0};
    if (!finish(best)) return {};
    std::vector<State> found{best};
    std::vector<State> beam{{given_, {}, 0}};
    for (int level = 0, stale = 0; stale < kPatience && !beam.empty(); ++level) {
        ++stale;
        std::vector<std::pair<double, State>> next;
        for (const State &state : beam) {
            const Tree cheapest = tree(state.there);
            const auto consider = [&](State grown) {
                if (grown.seconds >= kSlack * best.seconds) return;
                const bool again = std::ranges::any_of(next, [&](const auto &other) { return other.second.there == grown.there; });
                State whole = grown;
                if (again || !finish(whole)) return;
                next.emplace_back(whole.seconds, std::move(grown));
                found.push_back(whole);
                if (whole.seconds >= best.seconds * (1 - 1e-12)) return;
                best = std::move(whole);
                stale = 0;
            };
            for (Id t = 0; t < count_ && !control_.poll(); ++t) {
                if (state.there[t] || cheapest.seconds[t] >= Cost::kNever) continue;
                State grown = state;
                pay(collect(cheapest, t, grown.there), grown);
                consider(std::move(grown));
            }
            for (const int twin : twins(cheapest, state)) {
                if (control_.poll()) break;
                const Edge &edge = this->edge(twin);
                State grown = state;
                for (const Id input : edge.inputs) pay(collect(cheapest, input, grown.there), grown);
                pay({twin}, grown);
                for (const Id output : edge.outputs) grown.there[output] = true;
                consider(std::move(grown));
            }
        }
        std::ranges::stable_sort(next, {}, [](const auto &state) { return state.first; });
        if (next.size() > kBeam) next.resize(kBeam);
        beam.clear();
        for (auto &state : next) beam.push_back(std::move(state.second));
    }
    std::ranges::stable_sort(found, {}, &State::seconds);
    std::vector<std::vector<int>> kinds;
    std::erase_if(found, [&](const State &state) {
        if (!unsplit && std::ranges::none_of(state.edges, [&](int e) { return edge(e).splits; })) return true;
        std::vector<int> kind = state.edges;
        std::ranges::sort(kind);
        if (std::ranges::find(kinds, kind) != kinds.end()) return true;
        kinds.push_back(std::move(kind));
        return false;
    });
    if (found.size() > keep) found.resize(keep);
    return found;
}

// An edge is not needed where another makes as much, of less, for no more.
void Deriver::drop_dominated() {
    std::vector<std::size_t> order;
    for (std::size_t e = 0; e < edges_.size(); ++e)
        if (edges_[e].seconds < Cost::kNever) order.push_back(e);
    std::ranges::stable_sort(order, {}, [&](std::size_t e) { return edges_[e].seconds; });
    std::vector<std::vector<std::size_t>> makers(count_); // that are kept, the cheapest first
    for (const std::size_t e : order) {
        Edge &edge = edges_[e];
        const bool dominated = std::ranges::any_of(makers[edge.outputs[0]], [&](std::size_t other) {
            const Edge &cheaper = edges_[other];
            return std::ranges::includes(edge.inputs, cheaper.inputs) &&
                   std::ranges::all_of(edge.outputs, [&](Id output) {
                       return std::ranges::find(cheaper.outputs, output) != cheaper.outputs.end();
                   });
        });
        if (dominated) {
            edge.seconds = Cost::kNever;
            continue;
        }
        for (const Id output : edge.outputs) makers[output].push_back(e);
    }
    order.clear();
    for (std::size_t e = 0; e < edges_.size(); ++e)
        if (edges_[e].seconds < Cost::kNever) order.push_back(e);
    use(order);
}

// From now on only these edges are derived with.
void Deriver::use(std::span<const std::size_t> edges) {
    pool_.clear();
    for (std::vector<std::uint32_t> &uses : uses_) uses.clear();
    for (const std::size_t e : edges) {
        for (const Id input : edges_[e].inputs) uses_[input].push_back(static_cast<std::uint32_t>(pool_.size()));
        pool_.push_back(static_cast<int>(e));
    }
}

void Deriver::schedule(std::span<const int> edges) {
    std::vector<int> open;
    for (const int e : edges)
        if (!edge(e).exact) open.push_back(e);
    std::uint64_t schedules = 0, implementations = 0, unfit = 0;
    const auto count = static_cast<std::int64_t>(open.size());
    [[maybe_unused]] constexpr std::int64_t kFew = 256; // starting workers for so many costs more than they save
#pragma omp parallel for if (count > kFew) num_threads(threads_) schedule(dynamic, 16) reduction(+ : schedules, implementations, unfit)
    for (std::int64_t i = 0; i < count; ++i) {
        if (control_.poll()) continue;
        Edge &edge = this->edge(open[static_cast<std::size_t>(i)]);
        Scheduler scheduler(space_, sizes_, device_);
        edge.best = {edge.kernels, edge.signature, nullptr, {}};
        for (const Implementation &made : edge.signature->implementations) {
            const Cost cost = scheduler.best(*edge.kernels, made, *edge.signature, split_);
            ++implementations;
            unfit += !cost.fits();
            if (cost.seconds >= edge.best.cost.seconds) continue;
            edge.best.implementation = &made;
            edge.best.cost = cost;
        }
        edge.seconds = edge.best.cost.seconds;
        edge.exact = true;
        schedules += scheduler.tried;
    }
    counted_.schedules += schedules;
    counted_.implementations += implementations;
    counted_.unfit += unfit;
}

// A derivation of scheduled kernels: the best of what bounds promise is scheduled until the promise is kept.
double Deriver::known_solution() {
    while (!control_.poll()) {
        ++counted_.rounds;
        const Tree promised = tree(given_);
        std::vector<int> open;
        for (const int e : promised.edge)
            if (e >= 0 && !edge(e).exact) open.push_back(e);
        if (open.empty()) break;
        std::ranges::sort(open);
        open.erase(std::unique(open.begin(), open.end()), open.end());
        schedule(open);
    }
    State state{given_, {}, 0};
    return finish(state) ? state.seconds : Cost::kNever;
}

// Edges that may be part of a derivation of at most so many seconds: on the way to some input the dearest of bounds has
// been paid, and on the way from some output the cheapest path must be.
std::vector<int> Deriver::relevant(double limit) const {
    std::vector<double> to(count_, Cost::kNever), from(count_, Cost::kNever);
    for (Id t = 0; t < count_; ++t)
        if (given_[t]) to[t] = 0;
    for (const Id goal : goals_) from[goal] = 0;
    for (bool changed = true; changed;) {
        changed = false;
        for (const Edge &edge : edges_) {
            double reached = 0, left = Cost::kNever;
            for (const Id input : edge.inputs) reached = std::max(reached, to[input]);
            for (const Id output : edge.outputs) {
                left = std::min(left, from[output]);
                if (reached + edge.seconds < to[output]) {
                    to[output] = reached + edge.seconds;
                    changed = true;
                }
            }
            for (const Id input : edge.inputs)
                if (left + edge.seconds < from[input]) {
                    from[input] = left + edge.seconds;
                    changed = true;
                }
        }
    }
    std::vector<int> edges;
    for (std::size_t e = 0; e < edges_.size(); ++e) {
        double reached = 0, left = Cost::kNever;
        for (const Id input : edges_[e].inputs) reached = std::max(reached, to[input]);
        for (const Id output : edges_[e].outputs) left = std::min(left, from[output]);
        if (reached + edges_[e].seconds + left <= limit) edges.push_back(static_cast<int>(e));
    }
    return edges;
}

Derivation Deriver::derivation(const State &state) const {
    Derivation made{{}, state.seconds};
    for (const int e : state.edges) made.kernels.push_back(edge(e).best);
    return made;
}

std::vector<Derivation> Deriver::cheapest(std::int64_t split, std::size_t keep) {
    // A closure that was stopped early may have no kernel that makes an output.
    if (!reached_) return {};
    const bool first = !std::exchange(begun_, true);
    split_ = split;
    std::vector<std::size_t> all(edges_.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    use(all);
    const Scheduler scheduler(space_, sizes_, device_);
    for (Edge &edge : edges_) {
        // What has no split costs the same whatever the number of its parts.
        edge.exact &= !edge.splits;
        edge.seconds = edge.exact ? edge.best.cost.seconds : scheduler.bound(*edge.kernels, *edge.signature, split);
    }
    const double known = known_solution();
    if (known >= Cost::kNever) return {};
    const std::vector<int> open = relevant(known * kSlack);
    counted_.relevant = open.size();
    schedule(open);
    // What is not relevant is no part of anything so good.
    for (Edge &edge : edges_)
        if (!edge.exact) edge.seconds = Cost::kNever;

    drop_dominated();
    std::vector<Derivation> derivations;
    for (const State &state : share(keep, first)) derivations.push_back(derivation(state));
    return derivations;
}

} // namespace tilesmith
