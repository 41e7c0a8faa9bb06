#include "terms.hpp"

#include <algorithm>
#include <iterator>

namespace tilesmith {
namespace {

constexpr std::uint64_t kMinusOneValue = 0xffffffff00000001u;


bool touches(const Labels &labels, const Terms::Renaming &names) {
    return std::ranges::any_of(names, [&](const auto &pair) { return contains(labels, pair.first); });
}

// The bound labels of one name, and its copies that they get in some order.
struct Group {
    Label name;
    Labels labels;
    Labels names;
};

} // namespace

Label renamed(Label l, const Terms::Renaming &names) {
    for (const auto &[from, to] : names)
        if (from == l) return to;
    return l;
}

Labels unite(const Labels &a, const Labels &b) {
    Labels both;
    both.reserve(a.size() + b.size());
    std::ranges::set_union(a, b, std::back_inserter(both));
    return both;
}

Labels without(const Labels &a, const Labels &b) {
    Labels rest;
    std::ranges::set_difference(a, b, std::back_inserter(rest));
    return rest;
}

bool contains(const Labels &a, Label l) { return std::ranges::find(a, l) != a.end(); }

Terms::Terms(std::size_t limit) : limit_(limit) {
    for (Label l = 0; l < bound_name_.size(); ++l) bound_name_[l] = l;
    minus_one_ = variable(kMinusOne, {});
}

void Terms::exchange(const std::vector<Base> &group) {
    for (const Base base : group)
        for (int part = 0; part < kParts; ++part) bound_name_[label(base, part)] = label(group[0], part);
}

void Terms::check() const {
    if (size() > limit_) throw Overflow("the normal form grew past " + std::to_string(limit_) + " terms");
}

// Making terms -----------------------------------------------------------------------------------------------------

Terms::Poly Terms::poly(std::vector<Mono> monos) {
    std::ranges::sort(monos);
    const Poly id = polys_.intern(monos);
    if (id == poly_free_.size()) {
        Labels free;
        std::uint64_t value = 0;
        for (const Mono m : monos) {
            free = unite(free, mono_free_[m]);
            value = sum_of_values(value, mono_value_[m]);
        }
        poly_free_.push_back(std::move(free));
        poly_value_.push_back(value);
        check();
    }
    return id;
}

Terms::Mono Terms::mono(std::vector<Comp> comps) {
    std::ranges::sort(comps);
    while (comps.size() > 1 && comps[0] == kMinusOneComp && comps[1] == kMinusOneComp) comps.erase(comps.begin(), comps.begin() + 2);
    const Mono id = monos_.intern(comps);
    if (id == mono_free_.size()) {
        Labels free;
        std::uint64_t value = (std::uint64_t{1} << 32) + 1;
        for (const Comp c : comps) {
            free = unite(free, comp_free_[c]);
            value = product_of_values(value, c == kMinusOneComp ? kMinusOneValue : mix(c));
        }
        mono_free_.push_back(std::move(free));
        mono_value_.push_back(value);
    }
    return id;
}

Terms::Comp Terms::comp(const Labels &bound, std::vector<Atom> atoms) {
    Labels free;
    for (const Atom a : atoms) free = unite(free, atom_free_[a]);
    free = without(free, bound);

    std::vector<Group> groups;
    for (const Label l : bound) {
        const Label name = bound_name_[atomic(l)];
        auto group = std::ranges::find_if(groups, [&](const Group &g) { return g.name == name; });
        if (group == groups.end()) group = groups.insert(groups.end(), Group{name, {}, {}});
        group->labels.push_back(l);
    }
    Labels names;
    double orders = 1;
    for (Group &group : groups) {
        for (Label copy = 1; group.names.size() < group.labels.size(); ++copy)
            if (const Label name = copy_of(group.name, copy); !contains(free, name)) group.names.push_back(name);
        for (std::size_t i = 2; i <= group.names.size(); ++i) orders *= static_cast<double>(i);
        names.insert(names.end(), group.names.begin(), group.names.end());
    }
    if (orders > most_orders_) throw Overflow("a sum binds too many copies of one dimension");
    seen_orders_ = std::max(seen_orders_, orders);
    std::ranges::sort(names);

    std::vector<Atom> best;
    std::vector<Group> order = groups;
    for (bool more = true; more;) {
        Renaming renaming;
        for (const Group &group : order)
            for (std::size_t i = 0; i < group.labels.size(); ++i)
                if (group.labels[i] != group.names[i]) renaming.emplace_back(group.labels[i], group.names[i]);
        std::ranges::sort(renaming);
        std::vector<Atom> made = atoms;
        if (!renaming.empty())
            for (Atom &a : made) a = rename_atom(a, renaming);
        std::ranges::sort(made);
        if (best.empty() || made < best) best = std::move(made);
        more = false;
        for (Group &group : order)
            if ((more = std::ranges::next_permutation(group.names).found)) break;
    }

    std::vector<std::uint32_t> row;
    row.reserve(1 + names.size() + best.size());
    row.push_back(static_cast<std::uint32_t>(names.size()));
    row.insert(row.end(), names.begin(), names.end());
    row.insert(row.end(), best.begin(), best.end());
    const Comp id = comps_.intern(row);
    if (id == comp_free_.size()) comp_free_.push_back(std::move(free));
    return id;
}

Terms::Poly Terms::variable(std::uint32_t name, std::span<const Label> labels) {
    std::vector<std::uint32_t> row{kVariable, name};
    row.insert(row.end(), labels.begin(), labels.end());
    const Atom id = atoms_.intern(row);
    if (id == atom_free_.size()) {
        Labels free(labels.begin(), labels.end());
        std::ranges::sort(free);
        atom_free_.push_back(std::move(free));
    }
    return poly({mono({comp({}, {id})})});
}

Terms::Comp Terms::function(std::uint32_t kind, Poly argument) {
    const std::uint32_t row[] = {kind, argument};
    const Atom id = atoms_.intern(row);
    if (id == atom_free_.size()) atom_free_.push_back(poly_free_[argument]);
    return comp({}, {id});
}

// The operators ----------------------------------------------------------------------------------------------------

Terms::Poly Terms::add(Poly p, Poly q) {
    std::vector<Mono> both(monos(p).begin(), monos(p).end());
    both.insert(both.end(), monos(q).begin(), monos(q).end());
    return poly(std::move(both));
}

Terms::Poly Terms::mul(Poly p, Poly q) {
    std::vector<Mono> products;
    products.reserve(monos(p).size() * monos(q).size());
    for (const Mono a : monos(p))
        for (const Mono b : monos(q)) {
            std::vector<Comp> factors(comps(a).begin(), comps(a).end());
            factors.insert(factors.end(), comps(b).begin(), comps(b).end());
            products.push_back(mono(std::move(factors)));
        }
    return poly(std::move(products));
}

// What all terms of a sum have in common. None where a term is no more than that: there is no term 1.
std::vector<Terms::Comp> Terms::common(Poly p) const {
    const std::span<const Comp> first = comps(monos(p)[0]);
    std::vector<Comp> shared(first.begin(), first.end());
    std::size_t least = shared.size();
    for (const Mono m : monos(p).subspan(1)) {
        std::vector<Comp> both;
        std::ranges::set_intersection(shared, comps(m), std::back_inserter(both));
        shared = std::move(both);
        least = std::min(least, comps(m).size());
    }
    if (shared.size() == least) shared.clear();
    return shared;
}

std::vector<Terms::Comp> Terms::rest(Mono m, const std::vector<Comp> &taken) const {
    std::vector<Comp> left;
    std::ranges::set_difference(comps(m), taken, std::back_inserter(left));
    return left;
}

Terms::Poly Terms::multiplicative(Kind kind, Poly p) {
    std::vector<Comp> factors;
    const auto apply = [&](Comp c) { factors.push_back(function(kind, poly({mono({c})}))); };
    if (monos(p).size() == 1) {
        for (const Comp c : comps(monos(p)[0])) apply(c);
        return poly({mono(std::move(factors))});
    }
    // A product of a sum was distributed: a·b + a·c is a times b + c.
    const std::vector<Comp> shared = common(p);
    if (shared.empty()) return poly({mono({function(kind, p)})});
    std::vector<Mono> left;
    const std::vector<Mono> whole(monos(p).begin(), monos(p).end());
    for (const Mono m : whole) left.push_back(mono(rest(m, shared)));
    for (const Comp c : shared) apply(c);
    factors.push_back(function(kind, poly(std::move(left))));
    return poly({mono(std::move(factors))});
}

Terms::Poly Terms::square(Poly p) { return monos(p).size() == 1 ? mul(p, p) : opaque(kSquare, p); }

Terms::Poly Terms::exp(Poly p) {
    std::vector<Comp> factors;
    for (const Mono m : monos(p)) factors.push_back(function(kExp, poly({m})));
    return poly({mono(std::move(factors))});
}

bool Terms::knows(std::uint32_t kind, Poly p) const {
    const auto known = [&](std::optional<Poly> argument) {
        const std::uint32_t row[] = {kind, argument.value_or(0)};
        return argument && atoms_.find(row);
    };
    const auto single = [&](std::span<const Comp> factors) -> std::optional<Poly> {
        const auto m = monos_.find(factors);
        return m ? polys_.find({&*m, 1}) : std::nullopt;
    };
    if (kind == kExp)
        return std::ranges::all_of(monos(p), [&](Mono m) { return known(polys_.find({&m, 1})); });
    if (kind != kInverse && kind != kSqrt) return known(p);
    const auto each = [&](std::span<const Comp> factors) {
        return std::ranges::all_of(factors, [&](Comp c) { return known(single({&c, 1})); });
    };
    if (monos(p).size() == 1) return each(comps(monos(p)[0]));
    const std::vector<Comp> shared = common(p);
    if (shared.empty()) return known(p);
    std::vector<Mono> left;
    for (const Mono m : monos(p)) {
        const auto found = monos_.find(rest(m, shared));
        if (!found) return false;
        left.push_back(*found);
    }
    std::ranges::sort(left);
    return each(shared) && known(polys_.find(left));
}

Terms::Poly Terms::opaque(std::uint32_t kind, Poly p) { return poly({mono({function(kind, p)})}); }

void Terms::apart(Comp c, Labels &bound_labels, std::vector<Atom> &factors) {
    Renaming names;
    for (const Label l : bound(c)) {
        names.emplace_back(l, temporary(l));
        bound_labels.push_back(names.back().second);
    }
    for (const Atom a : atoms(c)) factors.push_back(rename_atom(a, names));
}

std::optional<Terms::Poly> Terms::sum(Label l, Poly p) {
    std::vector<Mono> sums;
    for (const Mono m : monos(p)) {
        std::vector<Comp> factors;
        Labels bound_labels{l};
        std::vector<Atom> inside;
        const Scope scope(temporaries_);
        for (const Comp c : comps(m)) {
            if (contains(comp_free_[c], l)) apart(c, bound_labels, inside);
            else factors.push_back(c);
        }
        if (inside.empty()) return std::nullopt;
        std::ranges::sort(bound_labels);
        factors.push_back(comp(bound_labels, std::move(inside)));
        sums.push_back(mono(std::move(factors)));
    }
    return poly(std::move(sums));
}

// Renaming ---------------------------------------------------------------------------------------------------------

Terms::Atom Terms::rename_atom(Atom a, const Renaming &names) {
    if (!touches(atom_free_[a], names)) return a;
    const auto old = atoms_[a];
    if (old[0] != kVariable) {
        const std::uint32_t row[] = {old[0], rename(old[1], names)};
        const Atom id = atoms_.intern(row);
        if (id == atom_free_.size()) atom_free_.push_back(poly_free_[row[1]]);
        return id;
    }
    std::vector<std::uint32_t> row(old.begin(), old.end());
    for (std::size_t i = 2; i < row.size(); ++i) row[i] = renamed(row[i], names);
    const Atom id = atoms_.intern(row);
    if (id == atom_free_.size()) {
        Labels free(row.begin() + 2, row.end());
        std::ranges::sort(free);
        atom_free_.push_back(std::move(free));
    }
    return id;
}

Terms::Comp Terms::rename_comp(Comp c, const Renaming &names) {
    Renaming here;
    std::vector<std::uint32_t> key{c};
    for (const auto &pair : names) {
        if (!contains(comp_free_[c], pair.first)) continue;
        here.push_back(pair);
        key.push_back(pair.first);
        key.push_back(pair.second);
    }
    if (here.empty()) return c;
    const Rows::Id place = renamings_.intern(key);
    if (place < renamed_.size() && renamed_[place] != ~Comp{0}) return renamed_[place];
    const Scope scope(temporaries_);
    Labels bound_labels;
    std::vector<Atom> factors;
    apart(c, bound_labels, factors);
    for (Atom &a : factors) a = rename_atom(a, here);
    std::ranges::sort(bound_labels);
    const Comp made = comp(bound_labels, std::move(factors));
    if (renamed_.size() < renamings_.size()) renamed_.resize(renamings_.size(), ~Comp{0});
    return renamed_[place] = made;
}

Terms::Poly Terms::rename(Poly p, const Renaming &names) {
    if (!touches(poly_free_[p], names)) return p;
    std::vector<Mono> made;
    for (const Mono m : monos(p)) {
        std::vector<Comp> factors;
        for (const Comp c : comps(m)) factors.push_back(rename_comp(c, names));
        made.push_back(mono(std::move(factors)));
    }
    return poly(std::move(made));
}

// For people -------------------------------------------------------------------------------------------------------

std::string Terms::show(Poly p) const {
    static const char *const names[] = {"", "1/", "sqrt", "exp", "square"};
    const auto show_label = [](Label l) {
        std::string text = std::to_string(atomic(l) / kParts + 1);
        text += "ilg"[atomic(l) % kParts];
        return text.append(l >> kCopyShift, '\'');
    };
    std::string text;
    for (const Mono m : monos(p)) {
        if (!text.empty()) text += " + ";
        bool first = true;
        for (const Comp c : comps(m)) {
            text += first ? "" : "·";
            first = false;
            if (!bound(c).empty()) {
                text += "Σ[";
                for (const Label l : bound(c)) text += show_label(l) + ' ';
                text.back() = ']';
            }
            text += bound(c).empty() ? "" : "(";
            for (std::size_t i = 0; i < atoms(c).size(); ++i) {
                const Atom a = atoms(c)[i];
                text += i ? "·" : "";
                if (kind(a) == kVariable) {
                    const bool constant = atoms_[a][1] >= kConstant;
                    text += constant ? 'c' : 'v';
                    text += std::to_string(constant ? atoms_[a][1] - kConstant : atoms_[a][1]);
                } else {
                    if (kind(a) < kOpaque) text += names[kind(a)];
                    else text.append("f").append(std::to_string(kind(a) - kOpaque));
                    text.append("(").append(show(argument(a))).append(")");
                }
            }
            text += bound(c).empty() ? "" : ")";
        }
    }
    return text;
}

} // namespace tilesmith
