package reference

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"atlas/proxy/config"
)

// object is a JSON object.
type object map[string]any

// Patterns of strings. A variable may stand in any string; of a number or a boolean it
// has to be all of it.
const (
	somewhere       = `\$\{`
	variableOnly    = `^\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}$]*)?\}$`
	bytesPattern    = `^[0-9]+ *(B|KB|KiB|MB|MiB|GB|GiB)$`
	durationPattern = `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`
)

// Schema is a JSON Schema (draft 2020-12) of a configuration. What it accepts may
// still contradict itself; what it refuses, Atlas refuses.
func Schema() []byte {
	root := object{
		"$schema":              "https://json-schema.org/draft/2020-12/schema",
		"title":                "Atlas",
		"description":          "Configuration of the load balancer, reverse proxy and static file server Atlas.",
		"type":                 "object",
		"additionalProperties": false,
		"properties":           object{},
		"required":             []string{"listen"},
		"allOf":                modeRules(),
	}
	tables := config.Tables()
	byPath := map[string]object{"": root}
	for i := range tables {
		t := &tables[i]
		table := tableSchema(t)
		byPath[t.Path] = table
		parent, name := "", t.Path
		if dot := strings.LastIndexByte(t.Path, '.'); dot >= 0 {
			parent, name = t.Path[:dot], t.Path[dot+1:]
		}
		properties := byPath[parent]["properties"].(object)
		properties[name] = table
		if t.Repeated {
			properties[name] = object{"type": "array", "minItems": 1, "items": table, "description": t.Doc}
		}
	}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("reference: %v", err)) // a default in the table is no JSON
	}
	return append(text, '\n')
}

// modeRules are what a mode cannot do without.
func modeRules() []object {
	mode := func(of object) object {
		return object{"properties": object{"listen": object{"properties": object{"mode": of}}}}
	}
	static := mode(object{"const": string(config.Static)})
	static["properties"].(object)["listen"].(object)["required"] = []string{"mode"}
	return []object{
		{"if": static, "then": object{"anyOf": []object{
			{"properties": object{"listen": object{"required": []string{"root"}}}},
			{"required": []string{"static_files"},
				"properties": object{"static_files": object{"required": []string{"root"}}}},
		}}},
		{"if": mode(object{"enum": []string{string(config.HTTP), string(config.TCP)}}),
			"then": object{"required": []string{"upstreams"}}},
	}
}

func tableSchema(t *config.Table) object {
	properties, required := object{}, []string{}
	for _, k := range keysOf(t) {
		properties[k.Name()] = keySchema(&k)
		if k.Required {
			required = append(required, k.Name())
		}
	}
	table := object{
		"type": "object", "description": t.Doc, "additionalProperties": false,
		"properties": properties, "required": required,
	}
	if t.Path == "upstreams" { // a Unix socket has no port, all else has one
		unix := object{"properties": object{"address": object{"pattern": "^unix:"}}}
		variable := object{"properties": object{"address": object{"pattern": somewhere}}}
		table["if"] = object{"not": object{"anyOf": []object{unix, variable}}}
		table["then"] = object{"required": []string{"port"}}
	}
	return table
}

// keySchema is the schema of a value. Editors show its description.
func keySchema(k *config.Key) object {
	s := valueSchema(k)
	s["description"] = fmt.Sprintf("%s\n\nDefault: %s. Modes: %s. A change: %s.",
		k.Doc, standard(k), used(k), k.Reload)
	if k.Default != "" {
		s["default"] = json.RawMessage(k.Default) // what is TOML here is JSON as well
	}
	return s
}

func valueSchema(k *config.Key) object {
	variable := object{"type": "string", "pattern": variableOnly}
	number := object{"type": "integer", "minimum": k.Min}
	if k.Max != math.MaxInt64 {
		number["maximum"] = k.Max
	}
	switch k.Type {
	case config.Boolean:
		return object{"anyOf": []object{{"type": "boolean"}, variable}}
	case config.Integer:
		return object{"anyOf": []object{number, variable}}
	case config.Bytes:
		return object{"anyOf": []object{number, {"type": "string", "pattern": bytesPattern}, variable}}
	case config.Duration:
		return object{"type": "string", "anyOf": []object{{"pattern": durationPattern}, {"pattern": somewhere}}}
	case config.Enum:
		return object{"type": "string", "anyOf": []object{{"enum": k.Values}, {"pattern": somewhere}}}
	case config.List:
		return object{"type": "array", "items": object{"type": "string"}}
	}
	return object{"type": "string"}
}
